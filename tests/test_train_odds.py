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


def test_a_rare_number_is_asked_for_more_often_than_it_comes(clips: Clips) -> None:
    as_it_comes, evened = (shares(clips, "repetition", odds) for odds in (Odds(), usual(clips, 30)))
    assert max(as_it_comes.values()) > 1.1 * max(evened.values())
    assert sum(evened.get(n, 0) for n in "2345") > 2 * sum(as_it_comes.get(n, 0) for n in "2345")


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
