"""CostModel: what a step will take, learned from the steps that were run."""

from __future__ import annotations

import statistics

import numpy as np

SCALE = np.array([1.0, 1e-2, 1e-5])  # of steps, rows and pairs, so that all three are of the order of one
RIDGE = 1e-6
WARM = 8  # steps before it is believed
OUTLIER = 4.0  # a step so many times slower than expected says something about the machine, not about its rows


class CostModel:
    """Seconds of a step as `fixed + per_row * rows + per_pair * pairs`, fitted by least squares that forgets.

    A pair is a row and a slot it attends to. The coefficients are never negative: a step does not get cheaper by
    doing more. `prior` is used until it has seen enough steps.
    """

    def __init__(self, prior: tuple[float, float, float] = (0.0, 0.0, 0.0), *, forget: float = 0.98) -> None:
        self.steps = 0
        self._forget = forget
        self._gram = np.eye(3) * RIDGE
        self._right = np.zeros(3)
        self._weights = np.array(prior) / SCALE
        self._first: list[tuple[int, int, float]] = []  # steps seen before it was warm

    @property
    def warm(self) -> bool:
        """Whether enough steps were seen."""
        return self.steps >= WARM

    @property
    def fixed(self) -> float:
        """Seconds that a step takes whatever is in it."""
        return float(self._weights[0] * SCALE[0])

    def of(self, rows: int, pairs: int) -> float:
        """Seconds that so many rows and pairs add to a step."""
        return float(self._weights[1] * SCALE[1] * rows + self._weights[2] * SCALE[2] * pairs)

    def step(self, rows: int, pairs: int) -> float:
        """Seconds of a whole step."""
        return self.fixed + self.of(rows, pairs)

    def learn(self, rows: int, pairs: int, seconds: float) -> None:
        """A step of so many rows and pairs took `seconds`."""
        self.steps += 1
        if self.steps <= WARM:
            self._first.append((rows, pairs, seconds))
            if self.steps == WARM:
                self._begin()
            return
        self._enter(rows, pairs, min(seconds, OUTLIER * max(self.step(rows, pairs), 1e-6)))
        self._weights = self._solve()

    def _begin(self) -> None:
        """Believe the first steps, but for those in which something was loaded or compiled."""
        usual = statistics.median(seconds for _, _, seconds in self._first)
        for rows, pairs, seconds in self._first:
            if seconds <= OUTLIER * usual:
                self._enter(rows, pairs, seconds)
        self._first.clear()
        self._weights = self._solve()

    def _enter(self, rows: int, pairs: int, seconds: float) -> None:
        x = np.array([1.0, rows, pairs]) * SCALE
        self._gram = self._forget * self._gram + np.outer(x, x)
        self._right = self._forget * self._right + x * seconds

    def _solve(self) -> np.ndarray:
        """Least squares with the negative coefficients taken out, one by one."""
        kept = [0, 1, 2]
        while True:
            ridge = RIDGE * float(np.trace(self._gram)) * np.eye(len(kept))
            found = np.linalg.solve(self._gram[np.ix_(kept, kept)] + ridge, self._right[kept])
            worst = int(found.argmin())
            if found[worst] >= 0 or len(kept) == 1:
                weights = np.zeros(3)
                weights[kept] = np.maximum(found, 0.0)
                return weights
            del kept[worst]
