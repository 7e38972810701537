"""Reply: ask the model an open question and compare what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger
from streamvlm.models.base import VisionLanguageModel

SPARE = 4  # tokens more than the expected answer, by which a longer reply is known to be another


@dataclass(frozen=True, slots=True)
class Reply(Trigger):
    """Certain if the model replies `answer` to the question `asked`, up to case and a full stop; else impossible.

    To read a value is easier for a model than to compare it with one that it is told: "what does the sign show?" and
    "80" instead of "is this true now: the sign shows 80?". It writes at every look, which a `Probe` does not, and where
    the question supposes something that is not there a model may invent a reply.
    """

    asked: str
    answer: str
    reads: ClassVar[Reads] = "reply"

    def __post_init__(self) -> None:
        for name in ("asked", "answer"):
            if not _plain(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} must not be empty")

    def question(self, condition: str) -> str:
        return self.asked

    def room(self, model: VisionLanguageModel) -> int:
        return len(model.tokenize(self.answer)) + SPARE

    def probability(self, seen: Evidence) -> float:
        return float(_plain(seen.line) == _plain(self.answer))


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(".!?\"' ")
