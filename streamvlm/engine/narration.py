"""Narration: once a second, what happened in it, in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamvlm import prompts

LIMIT = 48  # tokens of a line
SAME_WITHIN = 2.0  # seconds; a line said again sooner is the same event, still going on


@dataclass(slots=True)
class Narration:
    """What is said about a stream, second by second."""

    every: float = 1.0  # seconds of stream time
    on: bool = True
    due: bool = False
    asking: bool = False
    skipped: int = 0  # seconds that went by while the one before was still being narrated
    _asked: float = -math.inf
    _line: str = ""
    _said: float = -math.inf

    def saw(self, time: float) -> None:
        """A block was seen; is it time?"""
        if not self.on or time - self._asked < self.every - 1e-6:
            return
        self._asked = time
        if self.asking or self.due:
            self.skipped += 1
        self.due = True

    def line(self, time: float, text: str) -> str:
        """The event in what the model wrote about the second up to `time`; "" if it is none, or no new one."""
        line = " ".join(text.split())
        if line.lower().rstrip(".") in ("", prompts.NOTHING):
            return ""
        again = line == self._line and time - self._said <= SAME_WITHIN + 1e-6
        self._line, self._said = line, time
        return "" if again else line
