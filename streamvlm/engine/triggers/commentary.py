"""Commentary: speak whenever the line narrated this second says something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger


@dataclass(frozen=True, slots=True)
class Commentary(Trigger):
    """The model narrates once a second and may have nothing to say (LiveCC, arXiv 2504.16030; StreamingVLM, arXiv
    2510.09608). A line that holds all of `words` is a trigger; without words every line is.
    """

    words: tuple[str, ...] = ()
    reads: ClassVar[Reads] = "line"

    def probability(self, seen: Evidence) -> float:
        said = set(seen.line.lower().replace(".", " ").replace(",", " ").split())
        return 1.0 if said and said.issuperset(word.lower() for word in self.words) else 0.0
