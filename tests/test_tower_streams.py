"""Streams whose frames are encoded together perceive what each of them would alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest
import torch
from driver import content
from families import FAMILIES, random_model
from held import ALL, BAD, LONG, Held, assert_same, model_of, random_pixels, until
from perceiving import drained
from torch import Tensor
from torch.testing import assert_close

from streamvlm import Agent, Frame, FramePerceived, ModelError, Stream, StreamEnded, TowerStats
from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.tower import Tower
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import StreamFacts
from streamvlm.pruning.spec import parse_prune

# one stream and its backlog


def shown(n: int, *, seed: int = 0, size: tuple[int, int] = (32, 48), gap_before: int | None = None) -> list[Frame]:
    pictures = random_pixels(seed, n, size)
    return [Frame(p, 0.5 * i, 0.5, gap=2.0 if i == gap_before else 0.0) for i, p in enumerate(pictures)]


def backlog(model: VisionLanguageModel, frames: Sequence[Frame], prune: str | None = None) -> list[Block]:
    """What a stream perceives whose frames all come while the tower is at its first patch."""
    held = Held(model)
    economy = None if prune is None else Economy(parse_prune(prune), StreamFacts(held.model, 2.0, 16.0))
    tower, room = Tower(held.model), len(frames)
    perceiver = Perceiver(frames, tower, paced=False, queue_frames=room, on_block=lambda: None, economy=economy)
    perceiver.start()
    assert held.entered.wait(LONG)
    until(lambda: len(perceiver._frames) == room - model.pixels.advance)
    held.release.set()
    blocks = drained(perceiver)
    assert perceiver.blocks.error is None
    return blocks


def one_by_one(model: VisionLanguageModel, frames: Sequence[Frame], prune: str | None = None) -> list[Block]:
    economy = None if prune is None else Economy(parse_prune(prune), StreamFacts(model, 2.0, 16.0))
    tower = Tower(model, together=False)
    perceiver = Perceiver(frames, tower, paced=False, queue_frames=4, on_block=lambda: None, economy=economy)
    perceiver.start()
    blocks = drained(perceiver)
    assert all(b.batch <= 1 for b in blocks)
    return blocks


def assert_blocks(found: Sequence[Block], expected: Sequence[Block]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.frames, one.last_pts, one.gap, one.saved) == (other.frames, other.last_pts, other.gap, other.saved)
        assert_same(one.tokens, other.tokens)


@pytest.mark.parametrize("family", ALL)
def test_a_backlog_is_encoded_together_as_it_would_be_one_by_one(family: str) -> None:
    """Patches of two frames, of one, and such that overlap; what comes after a gap shares nothing with what was."""
    model, frames = model_of(family), shown(9, gap_before=5)
    found = backlog(model, frames)
    assert_blocks(found, one_by_one(model, frames))
    assert found[0].batch == 1 and max(b.batch for b in found) >= 3
    assert all(b.encode_seconds > 0 for b in found)


def test_frames_of_several_sizes_in_a_backlog_keep_their_order() -> None:
    model = random_model("qwen3_vl")
    frames = [replace(f, pts=0.5 * i) for i, f in enumerate([*shown(5), *shown(4, size=(48, 32)), *shown(2, seed=5)])]
    assert_blocks(backlog(model, frames), one_by_one(model, frames))


def test_the_frames_before_one_that_cannot_be_encoded_are_perceived() -> None:
    held = Held(random_model("llava_onevision"))
    held.release.set()
    frames = shown(5)
    frames[3] = replace(frames[3], data=torch.full((3, 32, 48), BAD, dtype=torch.uint8))
    perceiver = Perceiver(frames, Tower(held.model), paced=False, queue_frames=8, on_block=lambda: None)
    perceiver.start()
    perceiver.join()
    assert [b.last_pts for b in perceiver.blocks.take(8)[0]] == [0.0, 0.5, 1.0]
    assert isinstance(perceiver.blocks.error, ModelError) and "out of memory" in str(perceiver.blocks.error)


@pytest.mark.parametrize("prune", ["dtd(by=features)+cap(4)", "tome(0.5)", "gate(settle=0.5)", "dtd+cap(3)", "cacher"])
def test_pruning_makes_the_same_of_a_backlog(prune: str) -> None:
    """What a gate or an encoder with a memory sees next depends on what was kept before: those wait their turn."""
    model, frames = random_model("qwen3_vl"), shown(10)
    found = backlog(model, frames, prune)
    assert_blocks(found, one_by_one(model, frames, prune))
    alone = prune == "cacher" or prune.startswith(("gate", "dtd+"))
    assert (max(b.batch for b in found) > 1) != alone
    assert prune != "cacher" or {b.batch for b in found} == {0}


def test_frames_that_come_one_by_one_are_encoded_as_ever_to_the_bit() -> None:
    model, turn = random_model("llava_onevision"), threading.Semaphore(1)

    def slowly() -> Iterator[Frame]:
        for frame in shown(5):
            assert turn.acquire(timeout=LONG)
            yield frame

    perceiver = Perceiver(slowly(), Tower(model), paced=True, queue_frames=4, on_block=lambda: None)
    perceiver.start()
    for frame in shown(5):
        ((block,), _) = perceiver.blocks.take(1)
        (expected,) = model.encode(frame.data[None], [(frame.pts, 0.5)])
        assert block.batch == 1 and torch.equal(block.tokens.embeds, expected.embeds)
        turn.release()
    perceiver.stop()


def test_a_camera_takes_no_more_than_there_is_room_for() -> None:
    """Two blocks may wait for the engine, and one in hand; all else must give way to something newer."""
    held = Held(random_model("llava_onevision"))

    def quickly() -> Iterator[Frame]:
        first, *others = shown(5)
        yield first
        assert held.entered.wait(LONG)
        yield from others

    perceiver = Perceiver(quickly(), Tower(held.model), paced=True, queue_frames=4, on_block=lambda: None)
    perceiver.start()
    until(lambda: len(perceiver._frames) == 4)
    held.release.set()
    until(lambda: len(held.calls) == 3)
    assert held.calls == [[0.0], [0.5], [1.0]] and len(perceiver._frames) == 2
    found: list[Block] = []
    while taken := perceiver.blocks.take(1)[0]:
        found += taken
    assert [b.last_pts for b in found] == [0.0, 0.5, 1.0, 1.5, 2.0]
    perceiver.stop()


# streams of an agent


def watched(model: VisionLanguageModel, n: int, **options: Any) -> tuple[list[list[Tensor]], set[int], TowerStats]:
    """Un-rotated keys and values of `n` streams that were watched at once, how many patches shared their calls, and
    what the shared tower did."""
    held = Held(model)
    with Agent(held.model) as agent:
        streams = [agent.watch(shown(6, seed=i), fps=2.0, **options) for i in range(n)]
        assert held.entered.wait(LONG)
        if options.get("share_tower", True):
            until(lambda: agent._engine.tower.waiting == n - 1)
        held.release.set()
        batches = set().union(*(batches_of(stream) for stream in streams))
        seen = [agent._engine.call(lambda s=stream: content(s._state)) for stream in streams]  # type: ignore[misc]
        return seen, batches, agent.encoding


def batches_of(stream: Stream) -> set[int]:
    events = stream.events()
    told = takewhile(lambda e: not isinstance(e, StreamEnded), events)
    return {e.batch for e in told if isinstance(e, FramePerceived)}


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_on_one_model_see_what_each_would_alone(family: str) -> None:
    together, _, shared = watched(random_model(family), 3)
    alone, single, own = watched(random_model(family), 3, share_tower=False)
    for mine, theirs in zip(together, alone, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert_close(one, other, atol=1e-5, rtol=0)
    assert shared.largest >= 2 and shared.retried == 0
    assert single == {1} and own == TowerStats()


def test_closing_a_stream_or_a_bad_frame_costs_the_others_nothing() -> None:
    held = Held(random_model("qwen3_vl"))
    bad = [replace(f, data=torch.full((3, 32, 48), BAD, dtype=torch.uint8)) for f in shown(4)]
    with Agent(held.model) as agent:
        good, closed, failing = (agent.watch(f, fps=2.0) for f in (shown(6), shown(6, seed=1), bad))
        assert held.entered.wait(LONG)
        until(lambda: agent._engine.tower.waiting == 2)
        closing = threading.Thread(target=closed.close)
        closing.start()
        until(lambda: closed.closed)
        held.release.set()
        closing.join(LONG)
        assert good.wait(LONG).frames == 6 and good.error is None
        with pytest.raises(ModelError, match="a frame cannot be encoded: out of memory"):
            failing.wait(LONG)
