"""Frame gate: a frame that looks like the last one that was let through is not encoded at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.pruning.difference import distance, reduced
from streamvlm.pruning.dtd import EPSILON, REFRESH
from streamvlm.pruning.protocols import FrameGate, Patch, StreamFacts, TokenBlock


@dataclass(frozen=True, slots=True)
class Gate:
    """Whole frames that differ nowhere from the last one let through are skipped."""

    name: ClassVar[str] = "gate"
    paper: ClassVar[str] = "near-duplicate frames; on-off as in change detection"

    tau: float = 0.02  # difference of the most changed part, in [0, 1], from which a frame is let through
    longest: float | None = None  # seconds that may be skipped in a row; None: three quarters of the window

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1 or (self.longest is not None and self.longest <= 0):
            raise ValueError(f"gate: tau must be in (0, 1] and longest more than 0, got {self.tau} and {self.longest}")

    def start(self, facts: StreamFacts) -> FrameGate:
        """The gate of one stream."""
        return _Gate(self, facts)


class _Gate:
    def __init__(self, settings: Gate, facts: StreamFacts) -> None:
        self._settings = settings
        self._device = facts.model.device
        self._longest = REFRESH * facts.horizon if settings.longest is None else settings.longest
        self._reference: Tensor | None = None
        self._let_through = 0.0  # seconds
        self._newest: Tensor | None = None

    def reset(self) -> None:
        """The next frame is let through."""
        self._reference = None

    def admit(self, patch: Patch) -> bool:
        """Whether anything differs, or too much time has passed."""
        pixels = reduced(patch.frames, patch.grid, self._device)
        self._newest = pixels[-1]
        if self._reference is None or self._reference.shape != self._newest.shape:
            return True
        if patch.pts - self._let_through >= self._longest - EPSILON:
            return True
        return bool(distance(pixels, self._reference, slack=1, peak=2).max() >= self._settings.tau)

    def note(self, block: TokenBlock) -> None:
        """It was let through by all gates."""
        self._reference, self._let_through = self._newest, block.patch.pts
