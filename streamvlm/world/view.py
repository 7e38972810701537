"""What an onlooker has seen of a story: the ground that questions about the past stand on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from streamvlm.world.scene import Scene, Thing
from streamvlm.world.story import QUIET_AFTER, QUIET_BEFORE, Event, Story
from streamvlm.world.wording import deed, statement

RECENT = 15.0  # seconds, what "in the last 15 seconds" means
_EDGE = 1.5  # seconds to either side of that border in which nothing that matters may lie
_WHILE = 0.6  # seconds before and after an event that show that it happened


@dataclass(frozen=True)
class View:
    """[since, now] of a story."""

    story: Story
    since: float  # seconds
    now: float
    rng: random.Random
    margin: tuple[float, float] = (QUIET_BEFORE, QUIET_AFTER)  # seconds of rest that a question about a scene needs

    def scene_at(self, time: float) -> Scene | None:
        """The scene at `time`, or None where it is changing or too near to a change."""
        return self.story.scene_at(time) if self.story.is_quiet(time, *self.margin) else None

    @cached_property
    def start(self) -> float:
        """Where "the last 15 seconds" begin, or later, with what was seen first."""
        return max(self.since, self.now - RECENT)

    @cached_property
    def events(self) -> list[Event]:
        """What happened, start to end, in the last 15 seconds."""
        return [e for e in self.story.between(self.start, self.now) if e.stop <= self.now]

    @cached_property
    def unsure(self) -> list[Event]:
        """What happened at the border, so that it may or may not count."""
        near = self.story.between(max(0.0, self.start - _EDGE), self.start + _EDGE)
        late = [e for e in self.story.between(self.now - 2, self.now + 0.01) if e.stop > self.now - 0.5]
        return [*near, *late] if self.start > 0 else late

    @cached_property
    def settled(self) -> list[Event]:
        """The events that are neither at the border nor only just over."""
        unsure = set(map(id, self.unsure))
        return [e for e in self.events if id(e) not in unsure]

    def clear(self, *matters: tuple[str, str]) -> bool:
        """Whether no such deed lies at the border."""
        return not any(deed(event) in matters for event in self.unsure)

    def unique(self, events: list[Event]) -> list[Event]:
        """Those whose statement is true of one event only, here and at the border."""
        said = [statement(e) for e in self.events] + [statement(e) for e in self.unsure if e not in self.events]
        return [e for e in events if said.count(statement(e)) == 1]

    @property
    def things(self) -> list[Thing]:
        """What is in sight now."""
        return list(self.story.event_at(self.now).after.things)


def around(*events: Event) -> tuple[float, float]:
    """The stretch [start, stop) that shows all of these events."""
    return max(0.0, min(e.start for e in events) - _WHILE), max(e.stop for e in events) + _WHILE
