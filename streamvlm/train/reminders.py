"""Earlier notes written before a question: some answer it, most do not matter to it."""

from __future__ import annotations

import random
from dataclasses import replace

from streamvlm.prompts import at_moment, with_notes
from streamvlm.train.clips import Clips
from streamvlm.world.kinds import make
from streamvlm.world.questions import Question
from streamvlm.world.story import Event, Story
from streamvlm.world.view import View
from streamvlm.world.wording import VERBS, clock, deed, statement

_REMEMBERED = ("color", "shape", "place", "count", "sign", "is-there", "action")  # what was asked before
_COUNTED = {"entered": "enter", "left": "leave", "blinked": "blink"}


def noted(clips: Clips, until: float, rng: random.Random) -> Question | None:
    """A question that notes from before `until` (seconds) answer, whatever is to be seen."""
    story, since = _elsewhere(clips, rng), rng.uniform(0, 20)
    shift = rng.uniform(0, max(1.0, until - since - 60))
    events = story.between(since, since + rng.uniform(3, 30))[: rng.randint(1, 9)]
    lines = [(e.stop + shift, statement(e)) for e in events]
    question = _about(events, [time for time, _ in lines], rng) if events else None
    return question and replace(question, text=with_notes(lines, question.text))


def reminded(question: Question, clips: Clips, until: float, rng: random.Random) -> Question:
    """The same question after notes from before `until` (seconds) that have nothing to do with it."""
    times = sorted(rng.uniform(0, max(0.5, until)) for _ in range(rng.randint(1, 5)))
    lines = [(time, text) for time in times if (text := _line(_elsewhere(clips, rng), rng))]
    return replace(question, text=with_notes(lines, question.text))


def _line(story: Story, rng: random.Random) -> str:
    """What was noted about a stretch of a story, or an answer that was given about it; may be empty."""
    since = rng.uniform(0, 20)
    if rng.random() < 0.3:
        asked = make(rng.choice(_REMEMBERED), View(story, since, since, rng, margin=(0, 0)))
        return f"{asked.text} {asked.answer}" if asked else ""
    return "; ".join(statement(e) for e in story.between(since, since + rng.uniform(3, 12))[:4])


def _elsewhere(clips: Clips, rng: random.Random) -> Story:
    return clips.stories[rng.randrange(clips.spec.clips)]


def _about(events: list[Event], times: list[float], rng: random.Random) -> Question | None:
    told, one = [statement(e) for e in events], rng.randrange(len(events))
    kind = rng.random()
    if kind < 0.27:
        return _when(told, one, times[one])
    if kind < 0.5:
        return _whether(events, one, rng)
    if kind < 0.7:
        return _order(told, rng)
    return _next(told, one) if kind < 0.87 else _number(events, rng)


def _when(told: list[str], one: int, time: float) -> Question | None:
    text = at_moment(time, f"what happened at {clock(time)}?")
    return Question("noted", text, told[one]) if told.count(told[one]) == 1 else None


def _whether(events: list[Event], one: int, rng: random.Random) -> Question | None:
    done = {deed(e) for e in events}
    who, verb = deed(events[one])
    if rng.random() < 0.5:
        return Question("noted", f"did {who} {verb}?", "yes")
    verb = rng.choice(list(VERBS.values()))
    return Question("noted", f"did {who} {verb}?", "no") if (who, verb) not in done else None


def _order(told: list[str], rng: random.Random) -> Question | None:
    once = [text for text in told if told.count(text) == 1]
    if len(once) < 2:
        return None
    first, second = (once[i] for i in sorted(rng.sample(range(len(once)), 2)))
    either = [first, second]
    rng.shuffle(either)
    return Question("noted", f"what happened first, {either[0]} or {either[1]}?", first, None, (second,))


def _next(told: list[str], one: int) -> Question | None:
    if one + 1 == len(told) or told.count(told[one]) > 1:
        return None
    return Question("noted", f"what happened right after {told[one]}?", told[one + 1])


def _number(events: list[Event], rng: random.Random) -> Question:
    verb = rng.choice(list(_COUNTED))
    return Question("noted", f"how many things {verb}?", str(sum(e.kind == _COUNTED[verb] for e in events)))
