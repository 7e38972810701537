"""Wrong answers of the same sort, and questions with lettered answers to choose from."""

from __future__ import annotations

import random
from dataclasses import replace

from streamvlm.world.questions import NONE, Question
from streamvlm.world.scene import COLORS, PLACES, SHAPES, WORDS

LETTERS = "ABCD"


def options_for(question: Question, rng: random.Random) -> tuple[str, ...]:
    """Three wrong answers of the same sort."""
    pools: dict[str, tuple[str, ...]] = {
        "color": (*COLORS, NONE), "shape": (*SHAPES, NONE), "place": (*PLACES, NONE), "next": WORDS,
        "count": tuple(str(n) for n in range(6)), "sign": WORDS if question.answer in WORDS else (),
    }  # fmt: skip
    pool = [o for o in pools.get(question.task, ()) if o != question.answer]
    if question.task == "sign" and question.answer.isdecimal():
        number = int(question.answer)
        pool = [str((number + d) % 100) for d in (1, 99, 10, 90, 5)]
    return tuple(rng.sample(pool, 3)) if len(pool) >= 3 else ()


def shuffled(question: Question, rng: random.Random) -> list[str]:
    """The right answer among up to three wrong ones."""
    options = [question.answer, *question.others[:3]]
    rng.shuffle(options)
    return options


def lettered(question: Question, rng: random.Random) -> Question:
    """The same question with its answers to choose from, and a letter as the answer."""
    options = shuffled(question, rng)
    shown = " ".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = f"{question.text} {shown}"
    return replace(question, text=text, answer=LETTERS[options.index(question.answer)], others=())
