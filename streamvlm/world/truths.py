"""What is true of a whole stream: what there is to narrate, and when the conditions that one may wait for hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from streamvlm.world.conditions import SECOND, facts, in_place, just_now, there_is
from streamvlm.world.scene import COLORS, PLACES, SHAPES, Scene
from streamvlm.world.story import Event, Story
from streamvlm.world.wording import look, statement

_NEVER = (0, 5)  # of every eight conditions, those that never come true
_OFTEN = 6, 300.0  # a condition may come true that many times, and once more for every so many seconds of stream
_TRIES = 40  # per condition


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened, as it should be told."""

    time: float  # seconds, when it was over
    statement: str


@dataclass(frozen=True, slots=True)
class Onset:
    """Once that a condition came true."""

    begins: float  # seconds, when the change to it begins: from here on an alarm is no false one
    since: float  # seconds, from here on it certainly holds
    until: float  # seconds, when it begins to hold no longer; the end of the stream, if it holds to its end


@dataclass(frozen=True, slots=True)
class Watch:
    """A condition as one asks to be told of it, and every time it came true. It does not hold at the start."""

    condition: str
    onsets: tuple[Onset, ...]


def narration(story: Story, seconds: float) -> list[Told]:
    """Everything that was over before `seconds`, in order."""
    return [Told(e.stop, statement(e)) for e in story.until(seconds) if e.kind != "start" and e.stop < seconds]


def watches_for(story: Story, seconds: float, count: int, seed: int = 0) -> list[Watch]:
    """`count` conditions for the first `seconds` of a story, half states ("the sign shows 42"), half moments.

    A quarter never comes true, unless the stream is so long that everything has happened. A thing that blinks is there.

    Raises:
        ValueError: less than one is asked for, or too little happens for that many.
    """
    if count < 1:
        raise ValueError(f"at least one watch must be asked for, got {count}")
    rng, found = random.Random(f"watches/{story.seed}/{seed}"), dict[str, Watch]()
    log = _Log.of(story, seconds)
    for number in range(count):
        make, never = (_state if number % 2 else _moment), number % 8 in _NEVER
        tries = (make(log, rng, rare and never) for rare in (True, False) for _ in range(_TRIES))
        watch = next((w for w in tries if w and w.condition not in found and len(w.onsets) <= log.most), None)
        if watch is None:
            raise ValueError(f"only {number} of {count} conditions can be waited for in {seconds:g} s")
        found[watch.condition] = watch
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Log:
    """What happened in a stream, and how it is told."""

    events: list[Event]
    told: list[str]  # one for each event but the first, which is the opening
    seconds: float

    @classmethod
    def of(cls, story: Story, seconds: float) -> _Log:
        events = [event for event in story.until(seconds) if event.stop < seconds]
        return cls(events, [statement(event) for event in events[1:]], seconds)

    @property
    def most(self) -> float:
        """How often a condition may come true."""
        return _OFTEN[0] + self.seconds / _OFTEN[1]


def _moment(log: _Log, rng: random.Random, never: bool) -> Watch | None:
    if not log.told:
        return None
    text = _made_up(rng) if never else rng.choice(log.told)
    hits = [event for event, told in zip(log.events[1:], log.told, strict=True) if told == text]
    if never == bool(hits):
        return None
    onsets = (Onset(e.start, e.stop, min(log.seconds, e.stop + SECOND)) for e in hits)
    return Watch(just_now(text), tuple(onsets))


def _made_up(rng: random.Random) -> str:
    verb = rng.choice(("entered", "left", "blinked", f"moved to the {rng.choice(PLACES)}"))
    thing = f"the {rng.choice(list(COLORS))} {rng.choice(SHAPES)} {verb}"
    return rng.choice((thing, thing, thing, f"the sign changed to {rng.randrange(100)}"))


def _state(log: _Log, rng: random.Random, never: bool) -> Watch | None:
    condition, holds = _condition(rng.choice(log.events).after, rng, never)
    if holds(log.events[0].after) or (never and any(holds(event.after) for event in log.events)):
        return None
    onsets = [
        Onset(event.start, event.stop, _end(log, index, holds))
        for index, event in enumerate(log.events)
        if holds(event.after) and not holds(event.before)
    ]
    return Watch(condition, tuple(onsets)) if onsets or never else None


def _end(log: _Log, index: int, holds: Callable[[Scene], bool]) -> float:
    """When what `holds` after event number `index` begins to hold no longer."""
    later = (event for event in islice(log.events, index + 1, None) if not holds(event.after))
    return next((event.start for event in later), log.seconds)


def _condition(scene: Scene, rng: random.Random, never: bool) -> tuple[str, Callable[[Scene], bool]]:
    """A condition on scenes, and the test for it; true of `scene`, unless it is to be one that is `never`."""
    kind = rng.random()
    if kind < 0.4 and (scene.sign or never):
        condition = f"the sign shows {scene.sign.text if scene.sign and not never else rng.randrange(100)}"
    elif kind < 0.5 and scene.dim:
        condition = "the light is dim"
    else:
        some = rng.choice(scene.things) if scene.things and not never else None
        name = look(some) if some else f"{rng.choice(list(COLORS))} {rng.choice(SHAPES)}"
        place = some.cell if some else rng.randrange(len(PLACES))
        condition = in_place(name, place) if kind < 0.75 else there_is(name)
    return condition, lambda s: condition in facts(s)
