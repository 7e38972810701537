"""The other ways to know when to speak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from driver import Driver, random_blocks
from families import random_model
from safetensors.torch import save_file
from test_agent import LONG, frames
from test_narration import Says
from test_watches import guard

from streamvlm import Agent, ModelConfig, ModelError, load_model
from streamvlm.engine.sight import Change
from streamvlm.engine.stream import StreamState
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


def written(stream: StreamState, text: str) -> None:
    """Have every reply that is being written say `text`."""
    (eos, *_) = stream.model.eos_tokens
    for reader in stream.background:
        reader.sampler = Says([*stream.model.tokenize(text), eos])


@pytest.mark.parametrize(("reply", "right"), [("80", 1.0), (" 80. ", 1.0), ("180", 0.0), ("8", 0.0), ("80 now", 0.0)])
def test_a_reply_to_the_question_is_compared_with_the_answer(reply: str, right: float) -> None:
    driver = Driver(MODEL)
    stream = driver.watch(random_blocks(MODEL, 1))
    watch = guard(driver, stream, Reply("what does it show?", "80"))
    driver.step()
    assert [reader.answer.question for reader in stream.background] == ["what does it show?"]
    written(stream, reply)
    driver.run()
    assert watch.probability == right and watch.looks == 1 and len(watch.fired) == right
    assert not stream.background


@torch.inference_mode()
def test_a_reply_that_is_cut_off_for_a_frame_says_nothing() -> None:
    driver = Driver(MODEL)
    stream = driver.watch(random_blocks(MODEL, 1))
    watch = guard(driver, stream, Reply("where is it?", "top"))
    driver.step()
    written(stream, "top left")
    driver.step(2)
    (reader,) = stream.background
    assert reader.tokens and not reader.answer.done
    stream.close_reader(reader, "truncated")
    assert watch.looks == 0 and not stream.mind.sentries[0].asking


@pytest.mark.parametrize("trigger", [Reply("what is it?", "a ball"), Commentary(("left",)), Probe()])
def test_a_watch_without_the_room_to_ask_is_refused(trigger: Trigger) -> None:
    with Agent(MODEL) as agent, agent.watch(frames(4), background_tokens=9) as stream:
        with pytest.raises(ValueError, match="background_tokens"):
            stream.watch("it left", trigger=trigger)
        stream.wait(LONG)


def test_what_is_narrated_can_hold_for_no_time() -> None:
    over = pytest.raises(ValueError, match="for_at_least=2: what is narrated is over at once")
    with Agent(MODEL) as agent, agent.watch(frames(4)) as stream, over:
        stream.watch("it left", trigger=Commentary(("left",)), for_at_least=2)


def test_a_reply_needs_a_question_and_an_answer() -> None:
    with pytest.raises(ValueError, match="answer=' ' must not be empty"):
        Reply("what is it?", " ")
    with pytest.raises(ValueError, match="asked='' must not be empty"):
        Reply("", "80")
    with pytest.raises(ValueError, match=r"answer='\.' must not be empty"):
        Reply("what is it?", ".")


@pytest.mark.parametrize(
    ("condition", "trigger"),
    [
        ("the sign shows 80", Reply("what does the sign show?", "80")),
        ("the red star is in the top left", Reply("where is the red star?", "top left")),
        ("there is a red star", Probe()),
        ("The sign shows 80!", Reply("what does The sign show?", "80")),
        ("the sign just changed to wait.", Commentary(("sign", "changed", "wait"), in_a_row=True)),
        ("the red star just moved to the left", Commentary(("red", "star", "moved", "left"), in_a_row=True)),
        ("the red star just left!", Commentary(("red", "star", "left"), in_a_row=True)),
        ("the sign no longer shows 80", Probe()),
        ("no red star is in the top left", Probe()),
        ("the sign shows 80 and there is a red star", Probe()),
        ("the red star is in the top left or the bottom", Probe()),
        ("the sign shows a number greater than 50", Probe()),
        ("there is just one star", Probe()),
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
    ("condition", "line", "fires"),
    [
        ("the red star just left.", "a ball enters; the red star left", True),
        ("the red star just left", "the red star moved to the left", False),
        ("the red star just moved to the left", "the red star moved to the left", True),
        ("the red star just moved to the left", "the red star moved to the bottom left", False),
        ("the red star just hit the blue ball", "the blue ball hit the red star", False),
        ("the red star just left", "the red star entered; the blue ball left", False),
    ],
)
def test_what_just_happened_is_told_apart_from_what_sounds_like_it(condition: str, line: str, fires: bool) -> None:
    assert Commentary.of(condition).probability(Evidence(MODEL, 0.0, line=line)) == float(fires)


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
