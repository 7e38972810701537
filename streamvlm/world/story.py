"""The event log: a seeded, endless sequence of scenes and of what happens between them."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from streamvlm.world.happenings import Looks, Playwright
from streamvlm.world.scene import Scene

QUIET_BEFORE = 0.8  # seconds without events before a question, so that its last sampled frame shows the truth
QUIET_AFTER = 0.3


@dataclass(frozen=True, slots=True)
class Pace:
    """How busy a story is."""

    quiet: tuple[float, float] = (1.6, 3.6)  # seconds between the end of an event and the next one
    change: tuple[float, float] = (0.6, 1.0)  # seconds an arrival, a move or a departure takes
    cut: float = 0.04  # chance that the next event replaces the whole scene

    def __post_init__(self) -> None:
        if min(*self.quiet, *self.change) < 0 or self.quiet[1] <= 0:
            raise ValueError(f"times must not be negative and quiet must last, got {self.quiet} and {self.change}")
        if not 0 <= self.cut <= 1:
            raise ValueError(f"cut is a chance in 0..1, got {self.cut}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in [start, stop); instantaneous events have start == stop."""

    kind: str  # start, or one of happenings.KINDS
    start: float
    stop: float
    before: Scene
    after: Scene
    thing: int | None = None  # id of the thing it happened to
    other: int | None = None  # id of the thing it was hit against


class Story:
    """The endless event log of one seed, written as far as anybody asked."""

    def __init__(self, seed: int, pace: Pace | None = None, looks: Looks = "all") -> None:
        self.seed = seed
        self.pace = pace or Pace()
        self.looks = looks
        self._random = random.Random(seed)
        self._playwright = Playwright(self._random, looks)
        self.noise = self._random.choice((0.0, 0.0, 3.0, 6.0, 9.0))  # standard deviation of the camera's, of 255
        opening = self._playwright.fresh_scene()
        self.events: list[Event] = [Event("start", 0.0, 0.0, opening, opening)]
        self._starts: list[float] = [0.0]

    def event_at(self, time: float) -> Event:
        """The latest event that had begun at `time` (seconds)."""
        if time < 0:
            raise ValueError(f"a story starts at 0 s, got {time}")
        while self._starts[-1] <= time:
            self._append()
        return self.events[bisect_right(self._starts, time) - 1]

    def scene_at(self, time: float) -> Scene | None:
        """The scene at `time`, or None while it is changing."""
        event = self.event_at(time)
        return event.after if time >= event.stop else None

    def is_quiet(self, time: float, before: float = QUIET_BEFORE, after: float = QUIET_AFTER) -> bool:
        """Whether nothing happens from `before` seconds earlier to `after` seconds later."""
        event = self.event_at(time + after)
        return event.kind == "start" or event.stop <= time - before

    def until(self, time: float) -> list[Event]:
        """All events that begin before `time`."""
        self.event_at(time)
        return self.events[: bisect_left(self._starts, time)]

    def between(self, start: float, stop: float) -> list[Event]:
        """The events, but for the opening, that begin in [start, stop)."""
        self.event_at(max(0.0, stop))
        found = self.events[bisect_left(self._starts, start) : bisect_left(self._starts, stop)]
        return [event for event in found if event.kind != "start"]

    def _append(self) -> None:
        last = self.events[-1]
        start = last.stop + self._random.uniform(*self.pace.quiet)
        happening = self._playwright.next(last, self.pace.cut)
        took = self._random.uniform(*self.pace.change) * happening.slowness
        self.events.append(
            Event(happening.kind, start, start + took, last.after, happening.after, happening.thing, happening.other)
        )
        self._starts.append(start)
