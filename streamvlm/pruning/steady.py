"""A camera that is not held still and light that is not steady: what of a picture's difference is theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

FLOOR = 0.05  # pixels darker than this say nothing about the light
ENOUGH = 0.1  # differences beyond this count no more: a thing that moved is not to outvote the background


@dataclass(frozen=True, slots=True)
class Steady:
    """How much of a whole picture's shift and brightness is put down to the camera, and compared as if it were not."""

    reach: int = 0  # reduced pixels (16 to a token) that the whole picture may be displaced, each way
    light: float = 1.0  # factor by which the whole picture may be brighter or darker

    def __post_init__(self) -> None:
        if not 0 <= self.reach <= 8 or not 1 <= self.light <= 4:
            raise ValueError(f"reach must be 0 to 8 and light 1 to 4, got {self.reach} and {self.light}")

    def match(self, reference: Tensor, picture: Tensor) -> tuple[Tensor, int, int]:
        """The reference as the camera has it now, and how far it was displaced, down and right.

        Args:
            reference: float [3, h, w] from `reduced`, what was seen before.
            picture: float [3, h, w], what is seen now.
        """
        lit = reference * self._gain(reference, picture) if self.light > 1 else reference
        if not self.reach:
            return lit, 0, 0
        down, right = self._shift(lit.mean(0), picture.mean(0))
        return lit.roll((down, right), (1, 2)), down, right

    def _gain(self, reference: Tensor, picture: Tensor) -> float:
        """The median brightness over the median before; 1 where that is more than light alone is to explain."""
        bright = (reference > FLOOR) & (picture > FLOOR)
        if not bool(bright.any()):
            return 1.0
        gain = float((picture[bright] / reference[bright]).median())
        return gain if abs(math.log(gain)) <= math.log(self.light) else 1.0

    def _shift(self, reference: Tensor, picture: Tensor) -> tuple[int, int]:
        """The displacement in which [h, w] and [h, w] differ least; none where that is as good."""
        height, width = picture.shape
        side = 2 * self.reach + 1
        inner = picture[self.reach : height - self.reach, self.reach : width - self.reach]
        moved = functional.unfold(reference[None, None], inner.shape)[0].T  # [side * side, pixels]
        error = (moved - inner.reshape(-1)).abs().clamp(max=ENOUGH).mean(1)
        still = side * side // 2
        found = int(error.argmin())
        found = still if float(error[still]) <= float(error[found]) * 1.05 else found
        return self.reach - found // side, self.reach - found % side


def beyond_edge(difference: Tensor, down: int, right: int) -> Tensor:
    """float [3, h, w] with 0 where the displaced reference shows nothing, or blurred what stood at its edge."""
    known = difference.clone()
    if down:
        known[:, slice(0, down + 1) if down > 0 else slice(down - 1, None)] = 0
    if right:
        known[:, :, slice(0, right + 1) if right > 0 else slice(right - 1, None)] = 0
    return known
