"""Narration: once a second, what happened in it, in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from streamvlm import prompts

LIMIT = 48  # tokens of a line
SECOND = 1.0  # seconds that a line is about
_STILL = 1.5  # seconds; what is said again within them is the same event, still going on or just over


@dataclass(slots=True)
class Narration:
    """What is said about a stream, second by second."""

    every: float = SECOND  # seconds of stream time
    told: bool = True  # to whoever listens; else there are lines only if watches go by them
    due: bool = False
    asking: bool = False
    skipped: int = 0  # seconds that went by while the one before was still being narrated
    _asked: float = -math.inf
    _told: float = -math.inf
    _said: dict[str, float] = field(default_factory=dict)  # what was said lately, and when last, in seconds

    def saw(self, time: float, *, watched: bool = False) -> None:
        """A block was seen; is it time? Where watches go by the lines, no second may be left out."""
        if time - self._asked < (min(self.every, SECOND) if watched else self.every) - 1e-6:
            return
        self._asked = time
        if self.asking or self.due:
            self.skipped += 1
        self.due = True

    def tells(self, time: float) -> bool:
        """Whether the line about the second up to `time` is one of those to be told."""
        if not self.told or time - self._told < self.every - 1e-6:
            return False
        self._told = time
        return True

    def line(self, time: float, text: str) -> str:
        """What is new in what the model wrote about the second up to `time`; "" if nothing is.

        A line is one event or several, with semicolons between them.
        """
        lately = {said: when for said, when in self._said.items() if time - when <= _STILL}
        found = {_plain(clause): clause for part in text.split(";") if (clause := " ".join(part.split()))}
        found.pop(prompts.NOTHING, None)
        self._said = lately | dict.fromkeys(found, time)
        return "; ".join(clause for plain, clause in found.items() if plain not in lately)


def _plain(clause: str) -> str:
    return clause.rstrip(".").lower()
