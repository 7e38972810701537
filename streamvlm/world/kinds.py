"""The kinds of question: what OVO-Bench calls them, and how one is made of what has been seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from streamvlm.world import backward, forward, standing
from streamvlm.world.choices import options_for
from streamvlm.world.conditions import SECOND, ended, sharp
from streamvlm.world.questions import TASKS, Question, ask
from streamvlm.world.story import Story
from streamvlm.world.view import View, around
from streamvlm.world.wording import clock, statement


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question."""

    name: str
    group: str  # present, backward, forward or proactive
    code: str  # OVO-Bench's name of the task, or StreamingBench's
    about: str  # what it asks
    make: Callable[[View], Question | None]


def _of_the_scene(task: str) -> Callable[[View], Question | None]:
    def make(view: View) -> Question | None:
        scene = view.scene_at(view.now)
        question = ask(scene, task, view.rng) if scene else None
        return question and replace(question, others=options_for(question, view.rng))

    return make


# Of the tasks about a scene: OVO-Bench's name, and what they ask.
_SCENES = {
    "color": ("ATR", "what color a thing is"),
    "shape": ("OJR", "what shape a thing is"),
    "count": ("ATR", "how many things there are"),
    "place": ("STU", "where a thing is"),
    "sign": ("OCR", "what is written on the sign"),
    "is-there": ("OJR", "whether there is such a thing"),
    "next": ("FPD", "what the sign will show next"),
}
MOMENTS = tuple(task for task in TASKS if task != "next")  # tasks that can be asked of an earlier moment


def episode(view: View) -> Question | None:
    """Something about an earlier moment that is named by its time."""
    times = [float(t) for t in range(math.ceil(view.since + 1), math.ceil(view.now)) if t < view.now - 0.9]
    found = None
    for time in view.rng.sample(times, min(12, len(times))):
        question = moment(view, time, f"at {clock(time)}")
        found = question or found
        if question and is_over(question, view):
            break
    return found


def moment(view: View, time: float, named: str) -> Question | None:
    """A question about an earlier `time`, which its words call `named` ("at 0:12")."""
    if view.rng.random() < 0.25:
        return happened(view.story, time, named)
    if view.scene_at(time) is None:
        return None
    return was(view, view.rng.choice(MOMENTS), time, named)


def was(view: View, task: str, time: float, named: str) -> Question | None:
    """A question of `task` about the scene at an earlier `time`."""
    scene = view.scene_at(time)
    question = ask(scene, task, view.rng) if scene else None
    if question is None:
        return None
    text, needs = f"{past_tense(question.text)} {named}?", (max(0.0, time - view.margin[0]), time + view.margin[1])
    return Question("episode", text, question.answer, needs, options_for(question, view.rng))


def happened(story: Story, time: float, named: str) -> Question | None:
    """What was over in the second before an earlier `time`."""
    since = time - SECOND
    over = ended(story, since, time)
    if len(over) != 1 or not (sharp(story, since) and sharp(story, time)):
        return None
    near = [statement(e) for e in story.between(max(0.0, time - 12), time + 8)]
    others = tuple(dict.fromkeys(n for n in near if n != statement(over[0])))[:3]
    return Question("episode", f"what happened {named}?", statement(over[0]), around(over[0]), others)


def is_over(question: Question, view: View) -> bool:
    """Whether something has changed since, so that looking at the present may not do."""
    assert question.needs is not None
    return bool(view.story.between(question.needs[1], view.now))


_TENSES = (
    (" does the sign show", " did the sign show"), (" does the sign say", " did the sign say"),
    (" is there ", " was there "), ("is there ", "was there "), (" are there", " were there"), (" is ", " was "),
    ("is ", "was "), (" do you see", " did you see"), ("do you see", "did you see"), (" can you see", " could you see"),
    ("can you see", "could you see"), (" are visible", " were visible"), (" does the ", " did the "),
)  # fmt: skip


def past_tense(text: str) -> str:
    """A question about the present as one about the past, without its mark: "what color was the star"."""
    text = text.rstrip("?.")
    for word in (" right now", " now"):
        text = text.removesuffix(word)
    for present, past in _TENSES:
        if present in text if present.startswith(" ") else text.startswith(present):
            return text.replace(present, past, 1)
    return text


_ALL = (
    *(Kind(task, "present", *_SCENES[task], _of_the_scene(task)) for task in TASKS),
    Kind("action", "present", "ACR", "what a thing is doing", forward.action),
    Kind("episode", "backward", "EPM", "what was so, or happened, at a time", episode),
    Kind("before", "backward", "EPM", "how something was until it changed", backward.before),
    Kind("order", "backward", "ASI", "what happened first, or next", backward.order),
    Kind("never", "backward", "HLD", "whether something happened; half of the time it did not", backward.never),
    Kind("repetition", "forward", "REC", "how often something happened", forward.repetition),
    Kind("step", "forward", "SSR", "whether something is going on", forward.step),
    Kind("clue", "forward", "CRR", "whether something can be known yet", forward.clue),
    Kind("narrate", "proactive", "PO", "what happened in the last second", standing.narrate),
    Kind("watch", "proactive", "PO", "whether a condition holds now", standing.watch),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def make(kind: str, view: View) -> Question | None:
    """A question of `kind` about what the view shows, or None where nothing can be asked without ambiguity."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of question {kind!r}; kinds are {tuple(KINDS)}")
    return KINDS[kind].make(view)
