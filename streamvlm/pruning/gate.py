"""Frame gate: a frame that looks like the last one that was let through is not encoded at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.pruning.difference import DETAIL, distance, reduced
from streamvlm.pruning.dtd import EPSILON, REFRESH
from streamvlm.pruning.protocols import FrameGate, Patch, StreamFacts, TokenBlock
from streamvlm.pruning.steady import Steady

STEP = 1  # reduced pixels that a slow camera moves from one frame to the next


@dataclass(frozen=True, slots=True)
class Gate:
    """Whole frames that differ nowhere from the last one let through are skipped.

    With `settle`, a change is let through once it has come to rest, or after so many seconds: one whole frame for what
    happened, instead of one for every moment of it. What was on its way and gone again is not seen.
    """

    name: ClassVar[str] = "gate"
    paper: ClassVar[str] = "near-duplicate frames; on-off as in change detection"

    tau: float = 0.02  # difference of the most changed part, in [0, 1], from which a frame is let through
    longest: float | None = None  # seconds that may be skipped in a row; None: three quarters of the window
    settle: float = 0.0  # seconds that a change may take to come to rest; 0: it is let through at once
    reach: int = 0  # of 16 pixels to a token: a camera that is so far from where it was is no change
    light: float = 1.0  # factor of brightness that is no change
    peak: int = 2  # side of the parts of those 16 x 16 that are compared

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1 or (self.longest is not None and self.longest <= 0):
            raise ValueError(f"gate: tau must be in (0, 1] and longest more than 0, got {self.tau} and {self.longest}")
        if self.settle < 0:
            raise ValueError(f"gate: settle must be 0 or more seconds, got {self.settle}")
        if self.peak < 1 or DETAIL % self.peak:
            raise ValueError(f"gate: peak must divide 16, got {self.peak}")
        Steady(self.reach, self.light)

    def start(self, facts: StreamFacts) -> FrameGate:
        """The gate of one stream."""
        return _Gate(self, facts)


class _Gate:
    def __init__(self, settings: Gate, facts: StreamFacts) -> None:
        self.strictness = 1.0
        self._settings = settings
        self._device = facts.model.device
        self._longest = REFRESH * facts.horizon if settings.longest is None else settings.longest
        self._far = Steady(settings.reach, settings.light)  # against the last one let through
        self._near = Steady(min(STEP, settings.reach), settings.light)  # against the one before
        self.reset()

    def reset(self) -> None:
        """The next frame is let through."""
        self._reference: Tensor | None = None  # float [3, h, w] of the last frame let through
        self._newest: Tensor | None = None  # of the latest, let through or not
        self._let_through = 0.0  # seconds
        self._changing: float | None = None  # seconds, since when something differs that was not let through

    def admit(self, patch: Patch) -> bool:
        """Whether anything differs and is at rest, or too much time has passed."""
        pixels = reduced(patch.new, patch.grid, self._device)
        before, self._newest = self._newest, pixels[-1]
        if self._reference is None or before is None or self._reference.shape != self._newest.shape:
            return True
        if patch.pts - self._let_through >= self._longest - EPSILON:
            return True
        if not self._differs(pixels, self._reference, self._far):
            self._changing = None
            return False
        if self._changing is None:
            self._changing = patch.pts
        waited = patch.pts - self._changing >= self._settings.settle - EPSILON
        return waited or not self._differs(pixels[-1:], pixels[-2] if len(pixels) > 1 else before, self._near)

    def note(self, block: TokenBlock) -> None:
        """It was let through by all gates."""
        self._reference, self._let_through, self._changing = self._newest, block.patch.pts, None

    def _differs(self, pixels: Tensor, reference: Tensor, steady: Steady) -> bool:
        """Whether it does, however it is held and lit; that is worked out only where it does as it is."""
        tau, peak = self._settings.tau * self.strictness, self._settings.peak
        cameras = (None, steady) if steady.reach or steady.light > 1 else (None,)
        return all(
            bool(distance(pixels, reference, slack=1, peak=peak, steady=camera).max() >= tau) for camera in cameras
        )
