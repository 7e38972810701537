"""The event log: a seeded, endless sequence of scenes and of what happens between them."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass, replace

from streamvlm.world.scene import COLORS, MAX_THINGS, SHAPES, Backdrop, Scene, Sign, Thing

QUIET_BEFORE = 0.8  # seconds without events before a question, so that its last sampled frame shows the truth
QUIET_AFTER = 0.3


@dataclass(frozen=True, slots=True)
class Pace:
    """How busy a story is."""

    quiet: tuple[float, float] = (1.6, 3.6)  # seconds between the end of an event and the next one
    change: tuple[float, float] = (0.5, 1.0)  # seconds an arrival, a move or a departure takes
    cut: float = 0.04  # chance that the next event replaces the whole scene

    def __post_init__(self) -> None:
        if min(*self.quiet, *self.change) < 0 or self.quiet[1] <= 0:
            raise ValueError(f"times must not be negative and quiet must last, got {self.quiet} and {self.change}")
        if not 0 <= self.cut <= 1:
            raise ValueError(f"cut is a chance in 0..1, got {self.cut}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in [start, stop); instantaneous events have start == stop."""

    kind: str  # start, enter, move, leave, sign, cut
    start: float
    stop: float
    before: Scene
    after: Scene
    thing: int | None = None  # id of the thing that moved


class Story:
    """The endless event log of one seed, written as far as anybody asked."""

    def __init__(self, seed: int, pace: Pace | None = None) -> None:
        self.seed = seed
        self.pace = pace or Pace()
        self._random = random.Random(seed)
        self._next_id = 0
        opening = self._fresh_scene()
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
        return [event for event in self.events if event.start < time]

    def _append(self) -> None:
        last = self.events[-1]
        start = last.stop + self._random.uniform(*self.pace.quiet)
        kind, after, thing = self._happening(last.after)
        stop = start + (self._random.uniform(*self.pace.change) if thing is not None else 0.0)
        self.events.append(Event(kind, start, stop, last.after, after, thing))
        self._starts.append(start)

    def _happening(self, scene: Scene) -> tuple[str, Scene, int | None]:
        if self._random.random() < self.pace.cut:
            return "cut", self._fresh_scene(), None
        full, empty = len(scene.things) >= MAX_THINGS, not scene.things
        weights = {
            "enter": 0.0 if full else 3.0,
            "leave": 0.0 if empty else 3.0,
            "move": 0.0 if empty else 2.0,
        }
        kind = self._random.choices([*weights, "sign"], [*weights.values(), 2.0])[0]
        if kind == "sign":
            return kind, self._turn_sign(scene), None
        if kind == "enter":
            arrived = self._fresh_thing(scene)
            return kind, replace(scene, things=(*scene.things, arrived)), arrived.id
        thing = self._random.choice(scene.things)
        if kind == "leave":
            return kind, replace(scene, things=tuple(t for t in scene.things if t is not thing)), thing.id
        moved = replace(thing, cell=self._random.choice(scene.free_cells))
        return kind, replace(scene, things=tuple(moved if t is thing else t for t in scene.things)), thing.id

    def _turn_sign(self, scene: Scene) -> Scene:
        """Show another number, or take the sign away, or put it up."""
        if scene.sign is None:
            return replace(scene, sign=Sign(self._random.randrange(100), self._random.choice(scene.free_cells)))
        if self._random.random() < 0.2:
            return replace(scene, sign=None)
        number = (scene.sign.number + self._random.randrange(1, 100)) % 100
        return replace(scene, sign=replace(scene.sign, number=number))

    def _fresh_scene(self) -> Scene:
        level = self._random.randrange(35, 100)
        backdrop = Backdrop(self._tone(level), self._tone(level), vertical=self._random.random() < 0.5)
        scene = Scene((), None, backdrop)
        if self._random.random() < 0.8:
            scene = self._turn_sign(scene)
        for _ in range(self._random.randint(0, MAX_THINGS)):
            scene = replace(scene, things=(*scene.things, self._fresh_thing(scene)))
        return scene

    def _tone(self, level: int) -> tuple[int, int, int]:
        red, green, blue = (level + self._random.randrange(-14, 15) for _ in range(3))
        return red, green, blue

    def _fresh_thing(self, scene: Scene) -> Thing:
        """A thing unlike those in sight, so that colour and shape together always name one thing."""
        seen = {(thing.color, thing.shape) for thing in scene.things}
        color, shape = self._random.choice([(c, s) for c in COLORS for s in SHAPES if (c, s) not in seen])
        red, green, blue = (min(255, max(0, v + self._random.randint(-12, 12))) for v in COLORS[color])
        self._next_id += 1
        return Thing(
            id=self._next_id,
            color=color,
            shape=shape,
            cell=self._random.choice(scene.free_cells),
            size=self._random.randint(42, 54),
            tint=(red, green, blue),
            offset=(self._random.uniform(-3, 3), self._random.uniform(-3, 3)),
            sway=self._random.uniform(0, 6.28),
        )
