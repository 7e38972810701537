"""The other ways to know when to speak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driver import Driver, random_blocks
from families import random_model
from safetensors.torch import save_file
from test_watches import guard

from streamvlm import ModelConfig, ModelError, load_model
from streamvlm.engine.mind import REPLY
from streamvlm.engine.sight import Change
from streamvlm.engine.triggers.base import Evidence, Trigger
from streamvlm.engine.triggers.commentary import Commentary
from streamvlm.engine.triggers.drop_ratio import LEAST_SEEN, DropRatio
from streamvlm.engine.triggers.heads import Heads
from streamvlm.engine.triggers.probe import Probe
from streamvlm.engine.triggers.reply import Reply
from streamvlm.engine.triggers.silence import Silence
from streamvlm.engine.triggers.usual import usual_trigger

MODEL = random_model("qwen3_vl")


def said(token: str, chance: float) -> Evidence:
    """After the newest frame `token` has that probability, and the rest is shared by all others."""
    chances = torch.full((len(MODEL.tokenizer),), (1 - chance) / (len(MODEL.tokenizer) - 1))
    chances[MODEL.tokenize(token)[0]] = chance
    return Evidence(MODEL, 0.0, logits=chances.log())


@pytest.mark.parametrize(("chance", "speaks"), [(0.95, False), (0.73, False), (0.7, True), (0.01, True)])
def test_a_silence_token_that_is_not_likely_enough_does_not_count(chance: float, speaks: bool) -> None:
    """VideoLLM-online: below the threshold silence is not an option, however likely it is otherwise."""
    assert (Silence(",", 0.725).probability(said(",", chance)) > 0.5) == speaks


def test_a_silence_token_must_be_one_token() -> None:
    with pytest.raises(ModelError, match="not one"):
        Silence("no token").probability(said(",", 0.5))


def test_what_the_model_makes_of_a_frame_is_read_without_any_reader() -> None:
    driver = Driver(MODEL)
    stream = driver.watch(random_blocks(MODEL, 5))
    watch = guard(driver, stream, Silence(","))
    driver.run()
    assert watch.looks == 5 and watch.probability is not None
    assert not stream.background and stream.stats.peak_slots <= stream.stats.tokens_seen


def test_a_reply_is_what_an_answer_to_the_question_would_be_and_is_compared() -> None:
    blocks, asked = random_blocks(MODEL, 2), "what does it show?"
    alone = Driver(MODEL)
    stream = alone.watch(blocks[:1])
    alone.step()
    answer = alone.ask(stream, asked, max_new_tokens=REPLY)
    alone.run()
    expected = answer.so_far
    assert expected.strip()
    driver = Driver(MODEL)
    watching = driver.watch(blocks[:1])
    right = guard(driver, watching, Reply(asked, expected.upper() + "."))
    wrong = guard(driver, watching, Reply(asked, expected + " not"))
    driver.run()
    assert (right.probability, wrong.probability) == (1.0, 0.0)
    assert right.looks == wrong.looks == 1 and len(right.fired) == 1 and not wrong.fired
    assert not watching.background


def test_a_reply_needs_a_question_and_an_answer() -> None:
    with pytest.raises(ValueError, match="answer=' ' must not be empty"):
        Reply("what is it?", " ")
    with pytest.raises(ValueError, match="asked='' must not be empty"):
        Reply("", "80")


@pytest.mark.parametrize(
    ("condition", "trigger"),
    [
        ("the sign shows 80", Reply("what does the sign show?", "80")),
        ("the sign just changed to wait.", Reply("what does the sign show?", "wait")),
        ("the red star is in the top left", Reply("where is the red star?", "top left")),
        ("there is a red star", Probe()),
        ("the red star just moved to the left", Commentary(("red", "star", "moved", "to", "left"))),
    ],
)
def test_a_condition_is_watched_for_in_the_way_its_model_was_trained_for(condition: str, trigger: Trigger) -> None:
    assert usual_trigger(MODEL, condition) == Probe()
    assert usual_trigger(load_model(ModelConfig(model="tiny")), condition) == trigger


def test_the_drop_ratio_is_judged_by_the_past_alone() -> None:
    trigger = DropRatio(share=0.1)
    still = [0.9 + 0.001 * (i % 7) for i in range(LEAST_SEEN + 12)]
    for ratio in still[:LEAST_SEEN]:
        assert trigger.probability(Evidence(MODEL, 0.0, Change(0.1, ratio, 0.0))) == 0.0
    for ratio in still[LEAST_SEEN:]:
        trigger.probability(Evidence(MODEL, 0.0, Change(0.1, ratio, 0.0)))
    assert trigger.probability(Evidence(MODEL, 0.0, Change(0.9, 0.3, 0.0))) == 1.0
    assert trigger.probability(Evidence(MODEL, 0.0, Change(0.1, 0.906, 0.0))) == 0.0


def test_heads_read_the_state_of_the_newest_frame(tmp_path: Path) -> None:
    size = MODEL.text_spec.hidden
    save_file({"weight": torch.eye(2, size), "bias": torch.zeros(2)}, tmp_path / "heads.safetensors")
    heads = Heads.load(tmp_path / "heads.safetensors", total=2.4)
    seen = Evidence(MODEL, 0.0, hidden=torch.cat([torch.tensor([9.0, 0.0]), torch.zeros(size - 2)]))
    scores = [heads.probability(seen) for _ in range(5)]
    assert scores[0] == pytest.approx((1 + 0.5) / 2, abs=1e-3)
    assert [score == 1.0 for score in scores] == [False, False, False, True, False], "the running sum is reset"
    driver = Driver(MODEL)
    watch = guard(driver, driver.watch(random_blocks(MODEL, 3)), Heads.load(tmp_path / "heads.safetensors"))
    driver.run()
    assert watch.looks == 3 and watch.error is None


def test_heads_of_another_model_are_refused(tmp_path: Path) -> None:
    driver = Driver(MODEL)
    watch = guard(driver, driver.watch(random_blocks(MODEL, 3)), Heads(torch.zeros(1, 5), torch.zeros(1)))
    driver.run()
    assert watch.over and isinstance(watch.error, ModelError)
    (tmp_path / "other.safetensors").write_bytes(b"nothing of the kind, but long enough")
    with pytest.raises(ModelError, match="holds no heads"):
        Heads.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("words", "line", "fires"),
    [
        ((), "a ball enters.", True),
        ((), "", False),
        (("ball",), "the Ball leaves", True),
        (("cat",), "a ball", False),
        (("ball", "leaves"), "a dog enters; the ball leaves.", True),
        (("ball", "leaves"), "the ball enters. A dog leaves", False),
        (("shows", "3.5"), "it shows 3.5", True),
    ],
)
def test_commentary_speaks_when_there_is_something_to_say(words: tuple[str, ...], line: str, fires: bool) -> None:
    assert Commentary(words).probability(Evidence(MODEL, 0.0, line=line)) == float(fires)
