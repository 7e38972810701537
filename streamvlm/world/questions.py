"""Questions about a scene at rest: seven tasks, several phrasings, one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from streamvlm.world.scene import COLORS, PLACES, SHAPES, WORDS, Scene
from streamvlm.world.wording import with_article

NONE = "none"  # the answer about something that is not there
ABSENT = 0.08  # share of colour, shape, place and number questions about something that is not there
_PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
_COLOR = (
    "what color is the {}?", "what colour is the {}?", "which color is the {}?", "what color is the {} now?",
    "what is the color of the {}?", "what color does the {} have?", "tell me the color of the {}.",
)  # fmt: skip
_SHAPE = (
    "what shape is the {} object?", "what shape is the {} thing?", "what is the {} object?",
    "which shape is {}?", "what shape is {}?", "what is the shape of the {} object?",
)  # fmt: skip
_COUNT = (
    "how many {} are there?", "how many {} do you see?", "how many {} can you see?",
    "how many {} are visible now?", "how many {} are there right now?", "count the {}.",
)  # fmt: skip
_PLACE = (
    "where is the {}?", "where is the {} now?", "where do you see the {}?", "where can you see the {}?",
    "in which part of the picture is the {}?", "what is the position of the {}?",
)  # fmt: skip
_SIGN = (
    "what is on the sign?", "what does the sign show?", "what does the sign show now?", "what does the sign say?",
    "what number is on the sign?", "what number does the sign show?", "which number is on the sign?",
    "what number is on the sign now?", "read the sign.",
)  # fmt: skip
_NEXT = (
    "what will the sign show next?", "what does the sign show next?", "what comes next on the sign?",
    "what will the sign say next?",
)  # fmt: skip
_THERE = (
    "is there {}?", "is there {} now?", "do you see {}?", "can you see {}?", "is there {} in the picture?",
    "is {} visible?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one moment and its only right answer."""

    task: str
    text: str
    answer: str
    needs: tuple[float, float] | None = None  # seconds, what must have been seen to know; None: the moment it is asked
    others: tuple[str, ...] = ()  # wrong answers that are near the right one, where there are any


def _ask(rng: random.Random, task: str, phrasings: tuple[str, ...], what: str, answer: str) -> Question:
    return Question(task, rng.choice(phrasings).format(what), answer)


def _color(scene: Scene, rng: random.Random) -> Question | None:
    if rng.random() < ABSENT:
        named, answer = [s for s in SHAPES if not scene.find(shape=s)], NONE
    else:
        named, answer = [s for s in SHAPES if len(scene.find(shape=s)) == 1], ""
    if not named:
        return None
    shape = rng.choice(named)
    return _ask(rng, "color", _COLOR, shape, answer or scene.find(shape=shape)[0].color)


def _shape(scene: Scene, rng: random.Random) -> Question | None:
    if rng.random() < ABSENT:
        named, answer = [c for c in COLORS if not scene.find(color=c)], NONE
    else:
        named, answer = [c for c in COLORS if len(scene.find(color=c)) == 1], ""
    if not named:
        return None
    color = rng.choice(named)
    return _ask(rng, "shape", _SHAPE, color, answer or scene.find(color=color)[0].shape)


def _count(scene: Scene, rng: random.Random) -> Question | None:
    kind = rng.random()
    if kind < 0.4:
        return _ask(rng, "count", _COUNT, rng.choice(("objects", "shapes", "things")), str(len(scene.things)))
    if kind < 0.7:
        numbers = {f"{color} objects": len(scene.find(color=color)) for color in COLORS}
    else:
        numbers = {_PLURALS[shape]: len(scene.find(shape=shape)) for shape in SHAPES}
    number = rng.choice(sorted(set(numbers.values())))  # first the answer, or nearly all would be 0 or 1
    what = rng.choice([what for what in numbers if numbers[what] == number])
    return _ask(rng, "count", _COUNT, what, str(number))


def _place(scene: Scene, rng: random.Random) -> Question | None:
    if rng.random() < ABSENT:
        unseen = [(c, s) for c in COLORS for s in SHAPES if not scene.find(c, s)]
        return _ask(rng, "place", _PLACE, " ".join(rng.choice(unseen)), NONE)
    names = [(f"{t.color} {t.shape}", t.cell) for t in scene.things]
    names += [(t.shape, t.cell) for t in scene.things if len(scene.find(shape=t.shape)) == 1]
    names += [(f"{t.color} object", t.cell) for t in scene.things if len(scene.find(color=t.color)) == 1]
    if scene.sign is not None:
        names.append(("sign", scene.sign.cell))
    if not names:
        return None
    name, cell = rng.choice(names)
    return _ask(rng, "place", _PLACE, name, PLACES[cell])


def _sign(scene: Scene, rng: random.Random) -> Question | None:
    if scene.sign is None:
        return _ask(rng, "sign", _SIGN, "", NONE) if rng.random() < ABSENT * 4 else None
    number = scene.sign.text.isdecimal()
    phrasings = _SIGN if number else tuple(p for p in _SIGN if "number" not in p)
    return _ask(rng, "sign", phrasings, "", scene.sign.text)


def _next(scene: Scene, rng: random.Random) -> Question | None:
    following = scene.sign and scene.sign.following
    return _ask(rng, "next", _NEXT, "", following) if following else None


def _is_there(scene: Scene, rng: random.Random) -> Question | None:
    """Yes and no equally often; a no shares a colour or a shape with something in sight when it can."""
    kind = rng.random()
    if kind < 0.1:
        return _ask(rng, "is-there", _THERE, "a sign", "yes" if scene.sign else "no")
    yes = rng.random() < 0.5
    if kind < 0.3:
        names = [s for s in SHAPES if bool(scene.find(shape=s)) == yes]
    elif kind < 0.5:
        names = [f"{c} object" for c in COLORS if bool(scene.find(color=c)) == yes]
    else:
        pairs = [(c, s) for c in COLORS for s in SHAPES if bool(scene.find(c, s)) == yes]
        near = [p for p in pairs if scene.find(color=p[0]) or scene.find(shape=p[1])]
        names = [" ".join(pair) for pair in (near if near and rng.random() < 0.8 else pairs)]
    if not names:
        return None
    return _ask(rng, "is-there", _THERE, with_article(rng.choice(names)), "yes" if yes else "no")


_TASKS: dict[str, Callable[[Scene, random.Random], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "place": _place,
    "sign": _sign,
    "is-there": _is_there,
    "next": _next,
}
TASKS = tuple(_TASKS)


def ask(scene: Scene, task: str, rng: random.Random) -> Question | None:
    """A question of `task` about `scene`, or None where nothing can be asked without ambiguity."""
    if task not in _TASKS:
        raise ValueError(f"unknown task {task!r}; tasks are {TASKS}")
    return _TASKS[task](scene, rng)


def phrases() -> list[str]:
    """Every phrasing with every noun it can be asked about, and every answer: the words of the world."""
    nouns = [*SHAPES, *(f"{c} object" for c in COLORS), *(f"{c} thing" for c in COLORS), "sign"]
    plurals = [*_PLURALS.values(), *(f"{c} objects" for c in COLORS), "objects", "shapes", "things"]
    groups = (
        (_COLOR + _PLACE, nouns), (_SHAPE, list(COLORS)), (_COUNT, plurals), (_SIGN + _NEXT, [""]),
        (_THERE, [with_article(noun) for noun in nouns]),
    )  # fmt: skip
    asked = [phrasing.format(what) for phrasings, whats in groups for phrasing in phrasings for what in whats]
    return [*asked, *COLORS, *SHAPES, *PLACES, *WORDS, NONE, "yes", "no"]


def restyle(text: str, rng: random.Random) -> str:
    """The same question as people type it: capitals, no full stop."""
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.3 else text


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question and when it is asked."""

    time: float  # seconds
    question: Question
    distance: float = 0.0  # seconds back to what it needs, within a tenth; 0: within the window of the last 16 s
