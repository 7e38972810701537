"""A question on its way to a reader, and a block on its way into the window."""

from __future__ import annotations

from dataclasses import dataclass

from streamvlm.engine.answer import Answer
from streamvlm.engine.perceiver import Block
from streamvlm.memory.rows import Rows
from streamvlm.settings import SamplingConfig
from streamvlm.types import Segment

EPSILON = 1e-6  # seconds; moments that differ by less are the same


@dataclass(frozen=True, slots=True)
class Terms:
    """What a question may use of what its stream keeps beside the window, and whether it is kept itself."""

    memory: bool = True  # what is stored may be brought back
    notes: bool = True  # what was noted may be shown
    noted: bool = True  # the answer becomes a note, which later questions may be shown


@dataclass(slots=True, eq=False)
class Question:
    """A question that has not been given its snapshot yet."""

    answer: Answer
    sampling: SamplingConfig
    at: float | None  # seconds of stream time; None: as soon as anything has been seen
    between: tuple[float, float] | None = None  # where to look in what was stored; None: where its words say
    writes: bool = True  # False: only what is recalled is wanted
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True, eq=False)
class Perception:
    """A block placed in the window for the coming step."""

    block: Block | None  # None: only the opening text, of a stream that is resumed without frames
    placed: list[tuple[Segment, Rows]]
