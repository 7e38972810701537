"""Commentary: speak whenever the line narrated this second says something."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger

_END = re.compile(r"[;!?]|\.(?=\s|$)")  # of a sentence
_SMALL = frozenset(("a", "an", "in", "is", "just", "now", "second", "last", "shows", "the", "there"))


@dataclass(frozen=True, slots=True)
class Commentary(Trigger):
    """The model narrates once a second and may have nothing to say (LiveCC, arXiv 2504.16030; StreamingVLM, arXiv
    2510.09608). A sentence of a line that holds all of `words` is a trigger; without words every line is.
    """

    words: tuple[str, ...] = ()
    reads: ClassVar[Reads] = "line"

    @classmethod
    def of(cls, condition: str) -> Self:
        """One that looks for the words of a condition, those that say nothing left out."""
        return cls(tuple(word for word in _words(condition) if word not in _SMALL))

    def probability(self, seen: Evidence) -> float:
        wanted = {word.lower() for word in self.words}
        sentences = [_words(sentence) for sentence in _END.split(seen.line)]
        return float(any(said and wanted.issubset(said) for said in sentences))


def _words(sentence: str) -> list[str]:
    return sentence.lower().replace(",", " ").split()
