"""What a stream tells whoever listens. Every event has a `type` for JSON and the stream time it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.engine.answer import Answer
from streamvlm.memory.notes import Note
from streamvlm.pruning.savings import NOTHING_SAVED, Savings


@dataclass(frozen=True, slots=True)
class StreamStats:
    """A stream's counters at one moment; tokens_seen == tokens_window + tokens_stored + tokens_dropped."""

    frames: int = 0  # committed to the cache
    frames_dropped: int = 0  # read from the source but pushed out by newer ones
    gap_seconds: float = 0.0  # of stream lost by the source
    tokens_seen: int = 0
    tokens_window: int = 0
    tokens_stored: int = 0
    tokens_dropped: int = 0
    peak_slots: int = 0
    capacity: int = 0
    rebases: int = 0  # times positions were shifted back, to keep angles small
    rung: int = 0  # of the ladder, what is given up now to keep up; 0 is nothing
    climbed: tuple[int, ...] = ()  # how often each rung was stepped on from below; () for a file
    rows_thought: int = 0  # of the language model, for watches, narration and notes
    saved: Savings = NOTHING_SAVED  # by pruning; tokens it left out were never prefilled and are not in `tokens_seen`
    rations: int = 0  # times frame rate or picture size were chosen to keep to a budget; 0 without one
    frames_spared: int = 0  # frames of the source that were left out for it


@dataclass(frozen=True, slots=True)
class FramePerceived:
    """A temporal patch is in the cache; questions asked from now on see it."""

    type: ClassVar[str] = "frame"
    pts: float  # seconds, of the newest frame in the patch
    frames: int  # in the patch
    lag: float | None  # seconds from capture to commit; None for an unpaced file
    step_seconds: float  # the forward pass that committed it
    tokens: int  # rows it took
    window_tokens: int
    slots_used: int
    capacity: int
    grid: tuple[int, int] = (0, 0)  # (rows, columns) of the tokens the patch has
    kept: tuple[int, ...] = ()  # those of them that were kept, as indices on the grid in raster order
    saved: Savings = NOTHING_SAVED
    encode_seconds: float = (
        0.0  # of the vision tower, its part of a shared call, and the pruners; on a CPU, of threads alone
    )
    batch: int = 0  # patches in the call of the vision tower it shared; 0: it needed none, or reused what it knew


@dataclass(frozen=True, slots=True)
class FramesDropped:
    """Newer frames pushed these out before they were perceived."""

    type: ClassVar[str] = "dropped"
    pts: float  # seconds, of the first one
    frames: int


@dataclass(frozen=True, slots=True)
class Gap:
    """The source lost this much of the stream just before `pts`."""

    type: ClassVar[str] = "gap"
    pts: float
    seconds: float


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    """A question was given its snapshot."""

    type: ClassVar[str] = "answer_started"
    pts: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """More text of an answer."""

    type: ClassVar[str] = "answer_piece"
    pts: float
    answer: Answer
    text: str


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """An answer ended: complete, truncated, cancelled or failed, as its `status` says."""

    type: ClassVar[str] = "answer"
    pts: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class WatchFired:
    """What a watch waits for came true."""

    type: ClassVar[str] = "watch"
    pts: float  # seconds, of the newest frame it was seen in
    condition: str
    probability: float
    since: float  # seconds, the first look at which it seemed true
    times: int  # it has fired, this one included
    answer: Answer | None = None  # to the question that was to be asked now


@dataclass(frozen=True, slots=True)
class Narrated:
    """What happened in the last second, in one line."""

    type: ClassVar[str] = "narration"
    pts: float  # seconds, the end of that second
    text: str


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """A line was written down, about a stretch of the stream that may lie somewhat back."""

    type: ClassVar[str] = "note"
    pts: float  # seconds, when it was ready
    note: Note


@dataclass(frozen=True, slots=True)
class LoadChanged:
    """More, or less, is given up to keep up with a live stream."""

    type: ClassVar[str] = "load"
    pts: float
    rung: int  # 0: nothing is given up
    name: str  # what the rung gives up


@dataclass(frozen=True, slots=True)
class RationChanged:
    """From here on, so many frames of such a size are shown, to keep to a budget."""

    type: ClassVar[str] = "ration"
    pts: float  # seconds, of the first patch of which that is true
    fps: float  # frames a second
    height: int  # pixels
    width: int
    tokens: int  # vision tokens of a temporal patch, before pruning
    rate: float  # vision tokens a second that are expected of it
    budget: float  # that may be spent
    moving: bool  # the picture moves, so that the frame rate is kept and its size gives way; else the other way round
    enough: bool  # it keeps to the budget; else both are at their least and it is overdrawn


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The source is exhausted, or failed with `error`. What was seen can still be asked about."""

    type: ClassVar[str] = "end"
    pts: float
    stats: StreamStats
    error: str | None = None


StreamEvent = (
    FramePerceived
    | FramesDropped
    | Gap
    | AnswerStarted
    | AnswerPiece
    | AnswerDone
    | WatchFired
    | Narrated
    | NoteTaken
    | LoadChanged
    | RationChanged
    | StreamEnded
)
