"""Ladder: what is given up, and in which order, when a live stream cannot be kept up with."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

HIGH, LOW = 0.8, 0.4  # of the lag a frame may have: above it climbs, below it comes down, between it stays
CLIMB, DESCEND = 1.0, 4.0  # seconds that must have lasted
STRETCH = 4.0  # how much more rarely watches look


class Rung(IntEnum):
    """Each gives up what those below it do, and one thing more."""

    CALM = 0
    NO_NOTES = 1
    RARE_WATCHES = 2
    NO_DUPLICATES = 3  # of frames, before they are encoded
    LOW_RESOLUTION = 4
    LOW_FPS = 5
    NEWEST_ONLY = 6  # of the frames that wait
    NO_QUESTIONS = 7

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(slots=True)
class Ladder:
    """One live stream's rung. It climbs one at a time while frames are late or lost, and comes down more slowly."""

    limit: float  # seconds a frame may be late
    rung: Rung = Rung.CALM
    climbed: Counter[Rung] = field(default_factory=Counter)  # how often each was stepped on from below
    _pressed: float = math.inf  # seconds of the clock since when it has been too much
    _eased: float = math.inf  # and since when there has been time to spare

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each rung was stepped on from below."""
        return tuple(self.climbed[rung] for rung in Rung)

    def see(self, now: float, lag: float, lost: int = 0) -> bool:
        """A frame was committed `lag` seconds after its capture, and `lost` were pushed out before it; whether the
        rung has changed."""
        pressure = 1.0 if lost else lag / self.limit
        self._pressed = min(self._pressed, now) if pressure >= HIGH else math.inf
        self._eased = min(self._eased, now) if pressure < LOW else math.inf
        if now - self._pressed >= CLIMB and self.rung < max(Rung):
            self.rung, self._pressed = Rung(self.rung + 1), now
            self.climbed[self.rung] += 1
            return True
        if now - self._eased >= DESCEND and self.rung > Rung.CALM:
            self.rung, self._eased = Rung(self.rung - 1), now
            return True
        return False
