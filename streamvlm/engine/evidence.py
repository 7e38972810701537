"""What a question asks its stream's memory for, and what it is given back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from streamvlm.memory.blocks import BlockRun

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """A stored stretch of the stream that a question brought back."""

    start: float  # seconds
    stop: float
    score: float  # of the retrieval method; comparable within one answer
    thumbnail: bytes = field(default=b"", repr=False)  # a small JPEG; empty if none was kept, or it is damaged


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A frame that was in the window when a question was asked."""

    at: float  # seconds
    thumbnail: bytes = field(repr=False)  # a small JPEG


@dataclass(frozen=True, slots=True)
class RecallCost:
    """Where the time of looking a question up went, in wall seconds."""

    probe: float = 0.0  # from its snapshot until its rows had been read once
    wait: float = 0.0  # for what was evicted just before it to be on the disk
    select: float = 0.0  # search, and choice within the budget
    read: float = 0.0  # of the blocks from the disk
    place: float = 0.0  # rotating them and giving them slots

    @property
    def load(self) -> float:
        """From the disk to the reader's slots."""
        return self.read + self.place


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """What a search found, in time order."""

    layers: tuple[BlockRun, ...] = ()  # one for all layers, or one for each; none if nothing was found
    moments: tuple[Moment, ...] = ()
    cost: RecallCost = RecallCost()
    unreadable: int = 0  # blocks that were wanted and that the disk did not give back


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One question to the memory."""

    question: str
    query: Tensor  # float32 [layers, heads, head_dim], the mean un-rotated query of its rows
    now: float  # seconds; the snapshot it is asked at
    window: tuple[Span, ...]  # what attention sees anyway
    between: Span | None  # asked for by the caller; else the question's own words decide
