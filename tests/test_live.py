"""Answers that see frames arriving while they are written: what they see, where they stand, and nobody else does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
from driver import Driver, content, perceived, random_blocks, window_of
from families import random_model
from test_agent import frames
from torch import Tensor
from torch.testing import assert_close

from streamvlm import Agent
from streamvlm.engine.answer import Answer
from streamvlm.engine.live import GAP
from streamvlm.engine.step import Outcome, StreamWork, prepare_step
from streamvlm.engine.stream import StreamState
from streamvlm.memory.slots import SHARED
from streamvlm.models.attention import Backend
from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.settings import Live
from streamvlm.types import Segment

SCHEMES: tuple[Live, ...] = get_args(Live)[1:]
BEFORE, MEANWHILE = 3, 5  # blocks


@dataclass
class Diary:
    """What went through the model, step by step."""

    parts: list[tuple[int, int, Segment, Tensor]] = field(default_factory=list)  # step, reader, rows and positions
    step: int = 0

    def prepare(
        self, works: Sequence[StreamWork], model: VisionLanguageModel, backend: Backend
    ) -> Callable[[], Outcome]:
        for work in works:
            self.parts += [(self.step, rows.reader, segment, rows.positions.clone()) for segment, rows in work.parts]
        self.step += 1
        return prepare_step(works, model, backend)


def dense(model: VisionLanguageModel, diary: Diary, *, live: bool) -> Tensor:
    """Logits of every row in one forward pass over all of them, with a mask that is made from the diary's steps."""
    segments = [segment for _, _, segment, _ in diary.parts]
    step = torch.cat([torch.full((len(s),), at) for at, _, s, _ in diary.parts])
    mine = torch.cat([torch.full((len(s),), reader != SHARED) for _, reader, s, _ in diary.parts])
    number = torch.arange(len(step))
    earlier = number[None] <= number[:, None]
    known = step[:, None] if live else torch.full_like(step[:, None], int(step[mine].min()))
    seen = torch.where(mine[:, None], mine[None] | (step[None] < known), ~mine[None]) & earlier
    injected = [s.deepstack for s in segments if s.deepstack]
    batch = LanguageInput(
        torch.cat([s.embeds for s in segments])[None],
        torch.cat([positions for *_, positions in diary.parts])[None],
        torch.cat([s.visual for s in segments])[None],
        tuple(torch.cat(layer) for layer in zip(*injected, strict=True)),
    )
    with torch.inference_mode():
        return model.logits(model.language(batch, attention_mask=seen[None, None])[0])


def asked(model: VisionLanguageModel, scheme: Live, meanwhile: int = MEANWHILE) -> tuple[Driver, Answer, Diary]:
    """A question after some blocks; one more is shown for every token that is written."""
    driver, diary = Driver(model), Diary()
    driver.engine._prepare = diary.prepare
    blocks = random_blocks(model, BEFORE + meanwhile)
    stream = driver.watch(blocks[:BEFORE], policy="full", live=scheme)
    driver.step(BEFORE)
    answer = driver.ask(stream, "what is it?", temperature=1.0, seed=3, min_new_tokens=8, max_new_tokens=8)
    driver.step()
    for block in blocks[BEFORE:]:
        driver.show(stream, [block])
        driver.step()
    driver.run()
    return driver, answer, diary


@pytest.mark.parametrize("scheme", [*SCHEMES, "snapshot"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_each_token_is_as_if_computed_with_all_frames_committed_by_then(family: str, scheme: Live) -> None:
    model = random_model(family)
    driver, answer, diary = asked(model, scheme)
    logits = dense(model, diary, live=scheme != "snapshot")
    rows = [reader != SHARED for _, reader, segment, _ in diary.parts for _ in range(len(segment))]
    prompt = next(len(segment) for _, reader, segment, _ in diary.parts if reader != SHARED)
    written = logits[torch.tensor(rows)][prompt - 1 :]
    assert len(driver.recordings[answer].logits) == len(written) == 8
    for ours, theirs in zip(driver.recordings[answer].logits, written, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_where_the_rows_of_an_answer_stand() -> None:
    model = random_model("llava_onevision")
    places: dict[Live, list[tuple[int, int]]] = {}  # (first position, where perception had come to) of each part
    for scheme in get_args(Live):
        _, _, diary = asked(model, scheme)
        ends: dict[int, int] = {}
        for step, reader, _, positions in diary.parts:
            if reader == SHARED:
                ends[step] = int(positions.max()) + 1
        places[scheme] = [
            (int(positions.min()), max(end for at, end in ends.items() if at < step))
            for step, reader, _, positions in diary.parts
            if reader != SHARED
        ]
    prompt, *tokens = places["snapshot"]
    assert prompt[0] == prompt[1], "after what was seen"
    length = tokens[0][0] - prompt[0]
    assert [at for at, _ in tokens] == list(range(prompt[0] + length, prompt[0] + length + 7))
    for (_, before), (at, seen) in itertools.pairwise(places["overlapped"]):
        assert at >= seen >= before, "never before a frame that it sees"
    assert any(at == seen for at, seen in places["overlapped"][1:]), "beside the frame that comes next"
    for scheme, origin in (("group_decoupled", 0), ("gap_isolated", GAP)):
        starts = [at for at, _ in places[scheme]]  # type: ignore[index]
        assert starts == [origin, *range(origin + length, origin + length + 7)]


def busy(model: VisionLanguageModel, **options: Any) -> tuple[StreamState, list[Answer]]:
    """A window that evicts and moves its sinks; with options, live answers that come, go and are cancelled."""
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 30), window_seconds=4.0, max_answer_tokens=12, **options)
    answers = []
    for number in range(6 if "live" in options else 0):
        driver.step(3)
        answers.append(driver.ask(stream, f"what is {number}?", temperature=1.0, seed=number, min_new_tokens=12))
        if number % 3 == 2:
            driver.step(3)
            answers[-1].cancel()
    driver.run()
    assert not stream.readers and stream.ladder is None
    return stream, answers


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_perception_is_the_same_whatever_answers_see(family: str, scheme: Live) -> None:
    model = random_model(family)
    (alone, _), (beside, answers) = busy(model), busy(model, live=scheme)
    for ours, theirs in zip(perceived(beside), perceived(alone), strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert any((a.seen_until or 0.0) > (a.as_of or 0.0) for a in answers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_so_it_is_where_positions_are_re_based_under_them(scheme: Live) -> None:
    model = random_model("qwen3_vl")
    (alone, _), (beside, _) = busy(model, rebase_at=100), busy(model, rebase_at=100, live=scheme)
    assert window_of(alone).rebases > 0 and window_of(beside).rebases > 0
    for ours, theirs in zip(content(beside), content(alone), strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_where_nothing_arrives_an_overlapped_answer_is_the_snapshot_s(scheme: Live) -> None:
    model = random_model("qwen3_vl")
    driver, answer, _ = asked(model, scheme, meanwhile=0)
    still, snapshot, _ = asked(model, "snapshot", meanwhile=0)
    assert answer.seen_until == answer.as_of == snapshot.as_of
    both = zip(driver.recordings[answer].logits, still.recordings[snapshot].logits, strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in both) == (scheme == "overlapped")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_that_was_not_trained_for_it_is_refused(scheme: Live) -> None:
    model = random_model("llava_onevision")
    with Agent(model) as agent:
        with pytest.raises(ValueError, match=f"live={scheme} needs a model trained for it, and this one .* for none"):
            agent.watch(frames(2), live=scheme)
        for options in {"policy": "last_frames"}, {"store": "/tmp/none"}:
            with pytest.raises(ValueError, match=f"live={scheme} "):
                agent.watch(frames(2), live=scheme, live_anyway=True, **options)
        with agent.watch(frames(2), live=scheme, live_anyway=True) as stream:
            assert stream.ask("what is it?", max_new_tokens=2).text(100) is not None
    model.module.config.streamvlm_live = [scheme]
    with Agent(model) as agent, agent.watch(frames(2), live=scheme) as stream:
        assert stream.ask("what is it?", max_new_tokens=2).text(100) is not None
    model.module.config.streamvlm_live = []
