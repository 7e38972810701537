"""Notes before a question in training: either they hold its answer, or they do not matter to it."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from streamvlm.train.clips import Clips, ClipSpec, load_clips
from streamvlm.train.episodes import Recipe, make_episode
from streamvlm.train.reminders import noted, reminded
from streamvlm.world.questions import Question

FORMS = ("<", "did ", "how many ", "what happened first, ", "what happened right after ")
LINE = re.compile(r"<(\d+\.\d) seconds> (.+)")
VERBS = {"enter": "entered", "leave": "left", "blink": "blinked", "move": "moved", "shake": "shook"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return load_clips(ClipSpec("slow", 200, 2, 48, 4), tmp_path_factory.mktemp("cache"))


def read(text: str) -> tuple[list[tuple[float, str]], str]:
    """The notes (seconds, line) and the question after them."""
    head, *lines, question = text.split("\n")
    assert head == "Notes:"
    return [(float(m[1]), m[2]) for line in lines if (m := LINE.fullmatch(line))], question


def answer_of(lines: list[tuple[float, str]], question: str) -> str | None:
    """What a reader of the notes says, where the form of the question is known here."""
    told = [line for _, line in lines]
    if question.startswith("what happened first, "):
        one, other = question.removeprefix("what happened first, ").rstrip("?").split(" or ")
        return min(one, other, key=told.index)
    if question.startswith("what happened right after "):
        return told[told.index(question.removeprefix("what happened right after ").rstrip("?")) + 1]
    if question.startswith("how many things "):
        verb = question.removeprefix("how many things ").rstrip("?")
        return str(sum(line.split(" ")[3:] == [verb] for line in told))
    if moment := LINE.match(question):
        return next(line for time, line in lines if time == float(moment[1]))
    *who, verb = question.removeprefix("did ").rstrip("?").split(" ")
    if verb not in VERBS:
        return None
    return "yes" if any(line.startswith(f"{' '.join(who)} {VERBS[verb]}") for line in told) else "no"


def test_notes_that_answer_hold_the_answer(clips: Clips) -> None:
    rng, seen = random.Random(1), Counter[str]()
    for _ in range(600):
        question = noted(clips, 300.0, rng)
        if question is None:
            continue
        lines, asked = read(question.text)
        answer = answer_of(lines, asked)
        if answer is not None:
            assert answer == question.answer, question.text
            seen.update(form for form in FORMS if asked.startswith(form))
    assert min(seen[form] for form in FORMS) >= 20, seen


def test_notes_that_do_not_matter_are_older_and_change_nothing_else(clips: Clips) -> None:
    rng, asked = random.Random(2), Question("color", "what color is the star?", "red")
    texts = [reminded(asked, clips, 60.0, rng) for _ in range(50)]
    assert {question.answer for question in texts} == {"red"}
    notes = [read(question.text) for question in texts if question.text.startswith("Notes:")]
    assert len(notes) > 40
    assert {text for _, text in notes} == {"what color is the star?"}
    for lines, _ in notes:
        times = [time for time, _ in lines]
        assert lines and times == sorted(times) and times[-1] <= 60.0


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.0), (1.0, 0.9, 1.0)])
def test_the_share_of_reminded_questions_is_the_recipe_s(clips: Clips, share: float, least: float, most: float) -> None:
    kinds = {"color": 1.0, "sign": 1.0, "before": 1.0, "episode": 1.0}
    rng = random.Random(3)
    episodes = [make_episode(clips, 12, 8, rng, Recipe(kinds, reminded=share)) for _ in range(10)]
    texts = [asked.question.text for episode in episodes for asked in episode.asked]
    assert len(texts) > 40
    assert least <= sum(text.startswith("Notes:") for text in texts) / len(texts) <= most


def test_the_engine_s_own_questions_are_asked_without_notes(clips: Clips) -> None:
    kinds = {"narrate": 1.0, "watch": 1.0, "note": 1.0}
    episode = make_episode(clips, 12, 12, random.Random(4), Recipe(kinds, reminded=1.0))
    assert episode.asked
    assert not any(asked.question.text.startswith("Notes:") for asked in episode.asked)
