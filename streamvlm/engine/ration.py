"""Ration: how many frames a second, and how large, so that a stream keeps to a budget of vision tokens.

What moves is watched often and coarsely, what rests rarely and finely: a moment that was not shown cannot be shown
later, a detail of what stays can. It knows neither frames nor models, so that the rule can be tested with figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MARGIN = 0.1  # of the budget: by so much it may be overdrawn or left unused before anything changes
DWELL = 4.0  # seconds of stream from one change to the next
# Shares of the picture that change from one frame to the next; between the two it stays as it was.
MOVING, STILL = 0.02, 0.01
MOST = 2 * MOVING  # that counts: a cut is no movement, and what moved a lot comes to rest as soon as anything else
MEMORY = 4.0  # seconds over which movement and what pruning keeps are averaged


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stream was asked to keep to."""

    fps: float  # frames a second that were asked for; never more
    least_fps: float  # never fewer, whatever the budget
    advance: int  # frames by which temporal patches follow each other
    budget: float = math.inf  # vision tokens for a second of stream
    utilisation: float | None = None  # of the engine's time that watching all live streams may take

    @property
    def slowest(self) -> int:
        """Of so many frames asked for, one is shown at least."""
        return max(1, math.floor(self.fps / self.least_fps + 1e-9))


@dataclass(frozen=True, slots=True)
class Size:
    """A size in which a picture may be shown."""

    height: int  # pixels
    width: int
    tokens: int  # of a temporal patch, before pruning


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown, and why."""

    every: int  # of so many frames asked for, one is shown
    size: Size
    moving: bool  # the picture moved, so that its size gave way first
    rate: float  # vision tokens a second that were expected of it
    budget: float  # that it was to keep to
    fps: float  # frames a second

    @property
    def enough(self) -> bool:
        """Whether it keeps to the budget; if not, frame rate and size are at their least."""
        return self.rate <= self.budget * (1 + MARGIN)


class Ration:
    """One stream's choices.

    While the picture moves, the frame rate is kept as long as any size allows it, and of the sizes the largest that
    fits is taken; while it rests, the size is kept as long as any frame rate allows it. A choice is made anew when one
    turns into the other, when it overdraws the budget by a tenth, or when a better one fits with a tenth to spare, and
    not within four seconds of the last.
    """

    def __init__(self, terms: Limits) -> None:
        self.terms = terms
        self.choice: Choice | None = None
        self.moving = True  # until it is known: what is not shown now is lost
        self.load = 0.0  # part of the engine's time that watching takes now; told from the engine's thread
        self._movement = MOVING  # share of the picture, lately
        self._kept = 1.0  # share of a patch's tokens that pruning keeps, lately
        self._sizes: tuple[Size, ...] = ()
        self._since = -math.inf  # seconds, of the latest choice

    def moved(self, share: float, seconds: float) -> None:
        """So much of the picture changed with a frame, which came `seconds` after the one before."""
        self._movement += min(1.0, seconds / MEMORY) * (min(share, MOST) - self._movement)
        self.moving = self._movement >= (STILL if self.moving else MOVING)

    def kept(self, tokens: int, full: int, seconds: float) -> None:
        """Pruning kept `tokens` of a patch of `seconds` that has `full`."""
        self._kept += min(1.0, seconds / MEMORY) * (tokens / full - self._kept)

    @property
    def budget(self) -> float:
        """Vision tokens a second that may be spent now."""
        wanted = self.terms.utilisation
        spent = 0.0 if self.choice is None else self._rate(self.choice.every, self.choice.size)
        if wanted is None or not self.load or not spent:
            return self.terms.budget
        return min(self.terms.budget, spent * wanted / self.load)

    def choose(self, now: float, sizes: Sequence[Size]) -> bool:
        """Choose for the temporal patch at `now` seconds, whose pictures could have `sizes`, the largest first;
        whether that is another choice than before."""
        before, budget = self.choice, self.budget
        if before is None or tuple(sizes) != self._sizes:
            self._sizes = tuple(sizes)
            return self._take(self._best(budget), now)
        if now - self._since < DWELL:
            return False
        if self.moving != before.moving or self._rate(before.every, before.size) > budget * (1 + MARGIN):
            return self._take(self._best(budget), now)
        better = self._best(budget * (1 - MARGIN))
        return self._key(better) < self._key(before) and self._take(better, now)

    def _take(self, choice: Choice, now: float) -> bool:
        before, self.choice = self.choice, choice
        if before is not None and (before.every, before.size) == (choice.every, choice.size):
            return False
        self._since = now
        return True

    def _best(self, budget: float) -> Choice:
        choices = [self._made(every, size) for every in range(1, self.terms.slowest + 1) for size in self._sizes]
        fitting = [choice for choice in choices if choice.rate <= budget]
        return min(fitting, key=self._key) if fitting else choices[-1]

    def _made(self, every: int, size: Size) -> Choice:
        return Choice(every, size, self.moving, self._rate(every, size), self.budget, self.terms.fps / every)

    def _rate(self, every: int, size: Size) -> float:
        """Vision tokens a second that it comes to as of now."""
        return self.terms.fps / every / self.terms.advance * size.tokens * self._kept

    def _key(self, choice: Choice) -> tuple[int, int]:
        """The least is the best."""
        every, coarse = choice.every, -choice.size.tokens
        return (every, coarse) if self.moving else (coarse, every)
