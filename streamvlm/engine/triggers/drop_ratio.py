"""Drop ratio: the picture changes more than it lately did."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger

LEAST_SEEN = 8  # blocks before any is called unusual


@dataclass(slots=True)
class DropRatio(Trigger):
    """A block is a trigger if the share of its tokens that could be dropped is among the lowest `share` of the last
    `history` blocks. TimeChat-Online (arXiv 2504.17343) takes the lowest tenth of the whole video; this one does not
    know the future. Free, and blind to what the condition says.
    """

    share: float = 0.1
    history: int = 120  # blocks
    reads: ClassVar[Reads] = "change"
    _ratios: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share} must be between 0 and 1")

    def probability(self, seen: Evidence) -> float:
        assert seen.change is not None
        ratio, before = seen.change.drop_ratio, sorted(self._ratios)
        self._ratios.append(ratio)
        if len(self._ratios) > self.history:
            self._ratios.popleft()
        if len(before) < LEAST_SEEN:
            return 0.0
        return 1.0 if ratio < 1.0 and ratio <= before[int(self.share * len(before))] else 0.0
