"""Commentary: speak whenever the line narrated this second says something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger

_END = re.compile(r"[;!?]|\.(?=\s|$)")  # of a sentence
_SMALL = frozenset(("a", "an", "in", "is", "just", "now", "the", "there", "to"))


@dataclass(frozen=True, slots=True)
class Commentary(Trigger):
    """The model narrates once a second and may have nothing to say (LiveCC, arXiv 2504.16030; StreamingVLM, arXiv
    2510.09608). A sentence of a line that holds all of `words` is a trigger; if `in_a_row`, only in this order and with
    nothing but small words between them. Without words every line is.
    """

    words: tuple[str, ...] = ()
    in_a_row: bool = False
    reads: ClassVar[Reads] = "line"

    @classmethod
    def of(cls, condition: str) -> Self:
        """One that looks for a condition's words in a row, small ones left out."""
        return cls(tuple(word for word in _words(condition) if word not in _SMALL), in_a_row=True)

    def probability(self, seen: Evidence) -> float:
        return float(any(self._said(_words(sentence)) for sentence in _END.split(seen.line)))

    def _said(self, said: Sequence[str]) -> bool:
        wanted = [word.lower() for word in self.words]
        if not self.in_a_row:
            return bool(said) and set(said).issuperset(wanted)
        told = [word for word in said if word in wanted or word not in _SMALL]
        return any(told[i : i + len(wanted)] == wanted for i in range(len(told) - len(wanted) + 1))


def _words(sentence: str) -> list[str]:
    return [plain for word in sentence.lower().split() if (plain := word.strip(".,:!?\"'()"))]
