"""What is said about a stream and when, cut into the short overlapping chunks that are trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Manner = Literal["answer", "speak", "silent", "note"]
EPSILON = 1e-6  # seconds


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing a reader is asked and what it is to write, as of a moment of the stream."""

    time: float  # seconds; frames up to and including this moment are seen
    asked: str
    answer: str
    manner: Manner  # speak and silent are the two outcomes of one decision, the others are simply answered

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time) and self.time >= 0):
            raise ValueError(f"a time is 0 or more seconds, got {self.time}")
        if not self.answer.strip():
            raise ValueError(f"there is nothing to learn from an empty answer at {self.time} s")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A video watched as a stream from its beginning, and what is said along it."""

    video: Path
    turns: tuple[Turn, ...]  # in order of time
    start: float  # seconds, from where on it is talked about
    source: str  # the file and line it was read from


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """How long chunks are and how much two of them share."""

    seconds: float = 16.0  # no longer than the window of inference
    overlap: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.seconds < math.inf:
            raise ValueError(f"need 0 <= overlap_seconds < chunk_seconds, got {self.overlap} and {self.seconds}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The stream's first frames, its stretch [start, stop), and what is learnt in it."""

    conversation: Conversation
    start: float  # seconds
    stop: float  # seconds; nobody asks about what comes later
    turns: tuple[Turn, ...]


def cut(conversation: Conversation, spec: ChunkSpec) -> Iterator[Chunk]:
    """Overlapping chunks with full attention inside (StreamingVLM, arXiv 2510.09608).

    Every turn is learnt once, in the chunk that shows the most of what came before it: at least the overlap, if so
    much of the stream has passed.
    """
    stride = spec.seconds - spec.overlap
    chunks: dict[int, list[Turn]] = {}
    for turn in conversation.turns:
        passed = turn.time - conversation.start - spec.overlap
        chunks.setdefault(max(0, math.floor(passed / stride + EPSILON)), []).append(turn)
    for number, turns in sorted(chunks.items()):
        start = conversation.start + number * stride
        yield Chunk(conversation, start, max(t.time for t in turns), tuple(turns))
