"""What every trigger is: a way to a probability, from one kind of evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from streamvlm.engine.sight import Change
from streamvlm.models.base import VisionLanguageModel

Reads = Literal["answer", "reply", "frame", "change", "line"]

ASKING: tuple[Reads, ...] = ("answer", "reply")  # those that put a question to the model


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a trigger may look at; only what it reads is there."""

    model: VisionLanguageModel
    moment: float  # seconds of stream time that it is about
    change: Change | None = None  # how the newest block differs
    logits: Tensor | None = None  # float32 [vocabulary], after its question, or after the newest frame
    hidden: Tensor | None = None  # [hidden] the language model's last state at the same row
    line: str = ""  # what was replied or narrated, "" for nothing


class Trigger(ABC):
    """Tells how likely it is that a condition holds, or that something should be said, now.

    `reads` says what it needs: the logits after its question, before an `answer` (rows of a forward pass), what the
    model writes in `reply` to it (those and a few tokens), the newest `frame`'s own last row, the `change` of the
    picture (both free), or the narrated `line`.
    """

    reads: ClassVar[Reads]

    def question(self, condition: str) -> str:
        """What to ask the model, for triggers that read its answer or reply."""
        raise NotImplementedError(f"{type(self).__name__} asks nothing")

    def room(self, model: VisionLanguageModel) -> int:
        """Tokens that the model may write, for triggers that read its reply."""
        return 0

    def text(self, condition: str) -> str:
        """What shows a watch's interest: its question, or the condition where nothing is asked."""
        return self.question(condition) if self.reads in ASKING else condition

    @abstractmethod
    def probability(self, seen: Evidence) -> float:
        """From 0 to 1."""
