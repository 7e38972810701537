"""Perception and answers share a forward pass and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from driver import Driver, content, perceived, random_blocks, window_of
from families import FAMILIES, random_model
from torch.testing import assert_close

from streamvlm import NoteTaken
from streamvlm.engine.alarm import Alarm, Rule
from streamvlm.engine.baselines import Schedule
from streamvlm.engine.narration import Narration
from streamvlm.engine.notetaker import NoteTaker
from streamvlm.engine.perceiver import Block
from streamvlm.engine.segments import Boundaries
from streamvlm.engine.signal import HandOver
from streamvlm.engine.triggers.probe import Probe
from streamvlm.engine.triggers.reply import Reply
from streamvlm.engine.watches import Sentry, Watch
from streamvlm.errors import ModelError
from streamvlm.memory.notes import Notes
from streamvlm.memory.slots import FREE
from streamvlm.models.attention import Backend
from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.types import Kind

QUESTIONS = ["what?", "who is there, and why?", "how many?", "is it red?", "where to?", "a", "b b", "when did it end?"]
SMALL: dict[str, Any] = {"window_seconds": 4.0, "max_answer_tokens": 24}


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("family", FAMILIES)
def test_perception_does_not_depend_on_who_asks(family: str, backend: Backend) -> None:
    """With 0, 1 and 8 concurrent answers the perceived keys and values are the same."""
    model = random_model(family)
    blocks = random_blocks(model, 14)

    def watch(askers: int) -> list[torch.Tensor]:
        driver = Driver(model, backend=backend)
        stream = driver.watch(blocks, **SMALL)
        driver.step(3)
        for question in QUESTIONS[:askers]:
            driver.ask(stream, question)
        driver.run()
        assert stream.frames == len(blocks) * model.pixels.temporal
        return perceived(stream)

    alone = watch(0)
    for askers in (1, 8) if backend == "sdpa" else (8,):  # the other is slow where there is no GPU
        for ours, theirs in zip(watch(askers), alone, strict=True):
            assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_perception_does_not_depend_on_what_is_thought(family: str) -> None:
    """Watches, narration, notes, answers and their cancellation, in two streams: what either perceives is what it would
    perceive alone, and so is what an answer says."""
    model = random_model(family)
    shows = [random_blocks(model, 14, seed=seed) for seed in (0, 1)]

    def watch(thinking: bool) -> tuple[list[list[torch.Tensor]], str]:
        driver = Driver(model)
        streams = [driver.watch(show, **SMALL) for show in shows]
        if thinking:
            streams[0].mind.narration = Narration(0.5)
            streams[1].mind.taker = NoteTaker(Notes(), Boundaries(least=1.0, most=2.0), ["how many?"])
            for i in range(3):
                trigger = Reply("how many?", "two") if i == 2 else Probe()
                watch = Watch(f"condition {i}", trigger, Rule(), "why?" if i else None)
                streams[i % 2].mind.add(Sentry(watch, Alarm(watch.rule), driver.events.append))
        driver.step(4)
        answer = driver.ask(streams[0], "what?", temperature=0.9, seed=3)
        doomed = [driver.ask(streams[i % 2], q) for i, q in enumerate(QUESTIONS)] if thinking else []
        driver.step(3)
        for other in doomed[::2]:
            other.cancel()
        driver.run()
        assert all(y.watch.looks for s in streams for y in s.mind.sentries)
        assert not thinking or any(isinstance(e, NoteTaken) for e in driver.events)
        return [perceived(stream) for stream in streams], answer.so_far

    (alone, said), (beside, also) = watch(False), watch(True)
    assert also == said
    for ours, theirs in zip(beside, alone, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_answer_is_the_answer_given_alone(family: str) -> None:
    """Eight answers written together while the stream evicts everything they saw: each as if it were alone and
    the stream had stopped."""
    model = random_model(family)
    blocks = random_blocks(model, 40)

    together = Driver(model)
    stream = together.watch(blocks, **SMALL)
    together.step(6)
    answers = [together.ask(stream, q, temperature=0.7, seed=i) for i, q in enumerate(QUESTIONS)]
    together.run()
    assert all(a.as_of is not None and window_of(stream).spans[-1][0] > a.as_of for a in answers), "nothing evicted"

    for i, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True)):
        alone = Driver(model)
        halted = alone.watch(blocks[:6], **SMALL)
        alone.step(6)
        expected = alone.ask(halted, question, temperature=0.7, seed=i)
        alone.run()
        assert (answer.so_far, answer.tokens, answer.as_of) == (expected.so_far, expected.tokens, expected.as_of)
        ours, theirs = together.recordings[answer].logits, alone.recordings[expected].logits
        assert_close(torch.stack(ours), torch.stack(theirs), atol=1e-4, rtol=0)


def offline_logits(model: VisionLanguageModel, segments: list, tokens: list[int]) -> torch.Tensor:  # type: ignore[type-arg]
    """One causal forward over the whole prompt and the answer's tokens, without any cache of ours."""
    rows = [*segments, *(model.token_segment(t) for t in tokens)]
    cursor, positions = 0, []
    for segment in rows:
        positions.append(segment.positions + cursor)
        cursor += segment.extent
    injected = [s.deepstack for s in rows if s.deepstack]
    batch = LanguageInput(
        torch.cat([s.embeds for s in rows])[None],
        torch.cat(positions)[None],
        torch.cat([s.visual for s in rows])[None],
        tuple(torch.cat(layer) for layer in zip(*injected, strict=True)),
    )
    n = batch.embeds.shape[1]
    mask = torch.ones(n, n, dtype=torch.bool).tril()[None, None]
    return model.logits(model.language(batch, attention_mask=mask)[0])


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_an_answer_equals_the_offline_forward_on_what_it_saw(family: str) -> None:
    model = random_model(family)
    blocks = random_blocks(model, 30)
    driver = Driver(model)
    stream = driver.watch(blocks, window_seconds=1000.0, max_answer_tokens=16)
    driver.step(5)
    answer = driver.ask(stream, "what is this?")
    tokens: list[int] = []
    while driver.step():
        tokens = next((r.tokens for r in stream.readers if r.answer is answer), tokens)
    assert answer.done and len(tokens) > 4

    prompt = [model.text_segment(model.prefix_layout(), Kind.SINK)] if len(model.prefix_layout()) else []
    prompt += [model.frame_segment(b.tokens) for b in blocks[:5]]
    prompt += [model.question_segment("what is this?", 0.0)]
    expected = offline_logits(model, prompt, tokens)
    first = sum(len(s) for s in prompt) - 1  # the row the answer's first token is chosen from
    recorded = torch.stack(driver.recordings[answer].logits)
    assert_close(recorded, expected[first : first + len(recorded)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_streams_do_not_mix(family: str) -> None:
    model = random_model(family)
    shows = [random_blocks(model, 16, seed=1), random_blocks(model, 12, seed=2, size=(48, 32))]

    together = Driver(model)
    streams = [together.watch(show, **SMALL) for show in shows]
    together.step(4)
    answers = [together.ask(s, "what is it?", temperature=0.8, seed=5) for s in streams]
    together.run()

    for show, stream, answer in zip(shows, streams, answers, strict=True):
        alone = Driver(model)
        single = alone.watch(show, **SMALL)
        alone.step(4)
        expected = alone.ask(single, "what is it?", temperature=0.8, seed=5)
        alone.run()
        assert answer.so_far == expected.so_far and answer.as_of == expected.as_of
        for ours, theirs in zip(content(stream), content(single), strict=True):
            assert_close(ours, theirs, atol=1e-5, rtol=0)


class Sudden(HandOver[Block]):
    """A queue into which the next block falls just after it was found empty."""

    def __init__(self, items: list[Block]) -> None:
        super().__init__(100)
        self.looks = 0
        for item in items:
            self.put(item)

    def peek(self) -> Block | None:
        self.looks += 1
        return super().peek() if self.looks % 2 == 0 else None


def test_a_frame_that_arrives_while_a_step_is_planned_is_not_seen_by_an_earlier_question() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch([], paced=False)
    stream.perceiver.blocks = Sudden(random_blocks(model, 12))
    stream.play_until = 1e9
    answers = [driver.ask(stream, "what?", at=at) for at in (0.7, 1.2, 2.9, 3.3)]
    for _ in range(60):
        with torch.inference_mode():
            driver.engine.step()
    assert [a.as_of for a in answers] == [0.5, 1.0, 2.5, 3.0]


def test_cancelling_gives_every_slot_back() -> None:
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 30), **SMALL)
    driver.step(8)
    answers = [driver.ask(stream, q) for q in QUESTIONS]
    driver.step(6)
    for answer in answers:
        answer.cancel()
    driver.step()
    window = window_of(stream)
    assert [a.status for a in answers] == ["cancelled"] * len(answers)
    assert int((window.cache.reader != FREE).sum()) == len(window)
    assert window.cache.pinned == 0


PINNING: dict[str, Any] = {
    "window_seconds": 20.0,
    "pinned_seconds": 1.0,
    "max_answer_tokens": 60,
    "max_question_tokens": 40,
    "max_readers": 1,
    "text_window": 0,
}


def test_a_reader_that_pins_too_much_is_truncated_and_perception_goes_on() -> None:
    """In a stream that runs by the clock the oldest answer yields; no frame waits for it."""
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 80), **PINNING)
    driver.step(22)
    answer = driver.ask(stream, "tell me everything", temperature=2.0, seed=1)
    for done in range(22, 80):
        driver.step()
        assert stream.frames == (done + 1) * model.pixels.temporal
    assert answer.status == "truncated" and 0 < answer.tokens < 60


def test_an_unpaced_file_waits_instead_of_truncating() -> None:
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 80), paced=False, ended=True, **PINNING)
    stream.play_until = 1e9
    driver.step(22)
    answer = driver.ask(stream, "tell me everything", temperature=2.0, seed=1)
    driver.run()
    assert answer.tokens == 60 or answer.status == "complete"
    assert stream.ended and stream.frames == 80 * model.pixels.temporal


@pytest.mark.parametrize("schedule", ["blocking", "alternating", "wait_k"])
def test_the_baselines_answer_the_same(schedule: Schedule) -> None:
    """Blocking and alternating differ in when they perceive, not in what they say."""
    model = random_model("qwen3_vl")
    blocks = random_blocks(model, 20)
    said = []
    modes: tuple[Schedule, ...] = ("packed", schedule)
    for mode in modes:
        driver = Driver(model, schedule=mode)
        stream = driver.watch(blocks, **SMALL)
        driver.step(4)
        answer = driver.ask(stream, "what?", temperature=0.9, seed=2)
        driver.run()
        said.append((answer.so_far, answer.as_of, stream.frames))
    assert said[0] == said[1]


def test_a_pinned_snapshot_never_takes_the_room_of_later_questions() -> None:
    """Perception pauses just when one answer keeps alive all it may, and every other reader still finds its slots."""
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 92), **{**PINNING, "window_seconds": 60.0, "max_readers": 4})
    driver.step(62)
    driver.ask(stream, "tell me everything", temperature=2.0, seed=1, min_new_tokens=60)
    driver.step(30)
    answers = [driver.ask(stream, "and then, and", temperature=2.0, seed=i, min_new_tokens=60) for i in range(3)]
    driver.run()
    assert [a.tokens for a in answers] == [60, 60, 60]


def test_an_answer_that_cannot_be_chosen_fails_alone() -> None:
    """At such a temperature the scores overflow, as a half-precision model's may by themselves."""
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 8), **SMALL)
    driver.step(2)
    broken = driver.ask(stream, "what?", temperature=1e-40)
    sound = driver.ask(stream, "what?")
    driver.run()
    with pytest.raises(ModelError, match="no token could be chosen"):
        broken.text()
    assert broken.status == "failed" and sound.tokens == 24 and stream.frames == 8 * model.pixels.temporal
    assert window_of(stream).cache.private == 0
