"""A question about an earlier moment reaches the model with the words that stood before that moment's frame."""

from __future__ import annotations

import pytest
from families import random_model

from streamvlm.engine.moments import moment_of, told
from streamvlm.prompts import at_moment


@pytest.mark.parametrize(
    ("question", "moment"),
    [
        ("what color was the star at 0:12?", 12.0),
        ("what color was the star at 1:00:12?", 3612.0),
        ("where was it 5 seconds ago?", 4995.0),
        ("how many were there an hour ago", 1400.0),
        ("what is that?", None),
        ("what happened in the last 15 seconds?", None),
        ("what happened between 1:00 and 2:00?", None),
        ("what came before 2:10?", None),
        ("was it there at 0:10 or at 0:20?", None),
        ("what happened at minute 5?", None),
        ("has the 10:15 train arrived?", None),
        ("what was on the 2:10 frame?", 130.0),
    ],
)
def test_only_a_single_moment_is_named(question: str, moment: float | None) -> None:
    assert moment_of(question, None, 5000.0) == moment


def test_a_named_stretch_is_a_moment_when_it_is_short() -> None:
    assert moment_of("what color?", (4.0, 5.0), 60.0) == 4.5
    assert moment_of("what color at 0:30?", (0.0, 60.0), 60.0) is None


def test_the_nearest_frame_is_named_in_the_words_of_the_family() -> None:
    frames = [0.0, 11.3, 11.8, 12.3, 40.0]
    qwen3, qwen2, llava = (random_model(f) for f in ("qwen3_vl", "qwen2_5_vl", "llava_onevision"))
    assert told(qwen3, "what was it?", 12.0, frames) == "<11.8 seconds> what was it?"
    assert told(qwen3, "what was it?", 12.0, frames) == at_moment(11.8, "what was it?")
    assert told(qwen2, "what was it?", 12.0, frames) == "Time=11.8s what was it?"
    assert told(llava, "what was it?", 12.0, frames) == "what was it?"
    assert told(qwen3, "what was it?", 30.0, frames) == "what was it?", "no frame was seen then"
    assert told(qwen3, "what was it?", None, frames) == "what was it?"


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_those_words_are_what_stands_before_the_frame(family: str) -> None:
    model = random_model(family)
    before = model.frame_layout((2, 2), 12.5).ids[: len(model.tokenize(model.time_words(12.5)))]
    assert before.tolist() == model.tokenize(model.time_words(12.5))
