"""Training asks what cannot be guessed: answers to the same words are as even as the worlds allow."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from streamvlm.train.clips import Clips, ClipSpec, load_clips
from streamvlm.train.episodes import Recipe, make_episode, usual
from streamvlm.train.odds import Odds, even
from streamvlm.world.questions import Question


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return load_clips(ClipSpec("slow", 300, 6, 80, 4), tmp_path_factory.mktemp("cache"))


def shares(clips: Clips, kind: str, odds: Odds) -> dict[str, float]:
    """Of questions of a kind, how many have each answer."""
    rng, answers = random.Random(1), Counter[str]()
    for _ in range(60):
        episode = make_episode(clips, 30, 12, rng, Recipe({kind: 1.0}, odds=odds))
        answers.update(asked.question.answer for asked in episode.asked)
    return {answer: number / answers.total() for answer, number in answers.items()}


def test_answers_to_the_same_words_become_even() -> None:
    text, rng = "how many things entered in the last 15 seconds?", random.Random(0)
    comes = {"0": 300, "1": 600, "2": 150}
    questions = [Question("repetition", text, answer) for answer, number in comes.items() for _ in range(number)]
    odds = even(questions)
    kept = Counter(question.answer for question in questions if odds.keep(question, rng))
    assert kept["2"] == comes["2"], "the rarest is always asked"
    assert all(120 < kept[answer] < 180 for answer in comes), kept


def test_nearly_always_the_same_answer_does_not_leave_hardly_any_question() -> None:
    comes = {"yes": 990, "no": 10}
    questions = [
        Question("clue", "can you tell yet?", answer) for answer, number in comes.items() for _ in range(number)
    ]
    odds = even(questions)
    assert sum(odds.keep(question, random.Random(0)) for question in questions[-10:]) == 10
    rng = random.Random(0)
    assert 30 < sum(odds.keep(question, rng) for question in questions) < 110


def test_none_is_not_the_answer_to_nearly_every_question_about_who_did_it(clips: Clips) -> None:
    def none_among_colors(odds: Odds) -> float:
        found = shares(clips, "never", odds)
        colors = {answer: share for answer, share in found.items() if answer not in ("yes", "no")}
        return colors["none"] / sum(colors.values())

    assert none_among_colors(Odds()) > 0.6 > none_among_colors(usual(clips, 30))


def test_words_with_one_answer_or_hardly_any_questions_are_asked_as_they_come() -> None:
    rng = random.Random(0)
    always = [Question("clue", "can you tell yet where the red star moves?", "no")] * 50
    rare = [Question("step", "is the red star moving right now?", answer) for answer in ("yes", "no", "no", "no")]
    odds = even([*always, *rare])
    assert all(odds.keep(question, rng) for question in (*always, *rare))


def test_the_same_clips_have_the_same_odds(clips: Clips) -> None:
    assert usual(clips, 30) == usual(clips, 30)
    assert min(usual(clips, 30).kept.values()) > 0, "nothing may be left out for good"
