"""What left the window, brought back from disk for the question that needs it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driver import Driver, content, perceived, random_blocks, window_of
from families import FAMILIES, random_model
from test_agent import LONG, frames
from torch.testing import assert_close

from streamvlm import Agent, FingerprintError, SamplingConfig, StoreError, WatchConfig
from streamvlm.engine.answer import Answer
from streamvlm.engine.longterm import LongTermMemory
from streamvlm.engine.reader import make_reader
from streamvlm.memory.blocks import BlockRun, KVBlock
from streamvlm.memory.codecs import encode
from streamvlm.memory.leaving import Leaving, settled
from streamvlm.memory.recalling import recall
from streamvlm.models.attention import Backend
from streamvlm.settings import Codec

Options = dict[str, bool]
STORED = WatchConfig(window_seconds=3.0, max_answer_tokens=12, retrieve_tokens=400)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent(random_model("qwen3_vl"), watch=STORED) as agent:
        yield agent


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_recalling_every_block_equals_attending_to_the_whole_cache(family: str, backend: Backend) -> None:
    """A stream that evicts nothing, and a reader that is shown its middle from stored blocks instead of the slots."""
    model = random_model(family)
    blocks = random_blocks(model, 10)
    said = []
    for recalls in (False, True):
        driver = Driver(model, backend=backend)
        # A named store reserves slots for what is brought back.
        stream = driver.watch(blocks, window_seconds=1000.0, max_answer_tokens=8, store="unused")
        driver.step(len(blocks))
        window = window_of(stream)
        answer = Answer("what was it?", None, lambda: None)
        reader = make_reader(model, window, answer, SamplingConfig(temperature=0.8, seed=4), 8)
        if recalls:
            first = next(i for i, e in enumerate(window.entries) if not e.movable)
            middle = window.entries[first : first + 5]
            stored = [window.copy_of(e).block() for e in middle]
            for entry in middle:  # as if they had been evicted before the question
                window.cache.birth[entry.slots] = 10**9
            recall(window, reader.handle, [BlockRun.of(stored)])
        stream.readers.append(reader)
        answer.start(0.0, [])
        driver.engine._on_step = None
        driver.run()
        said.append((answer.so_far, torch.stack(driver.recordings[answer].logits)))
    (text, logits), (again, recalled) = said
    assert_close(recalled, logits, atol=1e-4, rtol=0)
    assert text == again


@pytest.mark.parametrize("codec", ["fp16", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_what_is_stored_is_what_the_slots_held(
    family: str, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, though the spiller comes to it only when the slots have long been used again."""
    model, over = random_model(family), threading.Event()

    def late(blocks: Sequence[Leaving]) -> list[KVBlock]:
        assert over.wait(LONG)
        return settled(blocks)

    monkeypatch.setattr("streamvlm.memory.spill.settled", late)
    config = replace(STORED, store=str(tmp_path / "m"), store_codec=codec)
    memory = LongTermMemory(tmp_path / "m", model, config, resume=False, wake=lambda: None)
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 40), window_seconds=3.0)
    driver.step()
    window, wanted = window_of(stream), []

    def keep(leaving: Leaving) -> bool:
        (entry,) = (e for e in window.entries if e.start == leaving.start and e.stop > e.start)
        keys, values = window.cache.unrotated(entry.slots), window.cache.values[:, :, entry.slots]
        wanted.append((entry.start, encode(codec, keys, values)))
        return memory.keep(leaving)

    window.on_evict = keep
    driver.run()
    stats = stream.stats
    assert stats.tokens_stored > 0 and stats.tokens_dropped == 0
    assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored
    over.set()
    assert memory._spiller.drain(LONG)
    stored = [(entry.start, memory.store.encoded(entry).payload) for entry in memory.store.blocks()]
    memory.close()
    assert len(stored) == len(wanted) > 24
    for (mine, payload), (start, expected) in zip(stored, wanted, strict=True):
        assert mine == start and torch.equal(payload, expected)


def test_a_question_finds_what_left_the_window(agent: Agent, tmp_path: Path) -> None:
    with agent.watch(frames(40), store=str(tmp_path / "m")) as stream:
        stats = stream.wait(LONG)
        answer = stream.ask("what was there?", between=(4.0, 6.0))
        answer.text(LONG)
        assert answer.recalled and all(4.0 - 1 <= m.start < 6.0 for m in answer.recalled)
        named = stream.ask("what was there at 0:09?")
        named.text(LONG)
        assert named.recalled and all(6.0 <= m.start <= 12.0 for m in named.recalled)
        moments = stream.recall("a red circle")
        assert moments and list(moments) == sorted(moments, key=lambda m: m.start)
        assert stats.tokens_dropped == 0 and stats.tokens_stored > 0
        assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored


def test_perception_does_not_depend_on_what_is_recalled(tmp_path: Path) -> None:
    with Agent(random_model("qwen3_vl"), watch=STORED) as agent:
        seen = []
        for asks in (0, 6):
            stream = agent.watch(frames(30), store=str(tmp_path / str(asks)))
            for i in range(asks):
                stream.ask(f"what {i}?", at=5.0 + i)
            stream.play()
            stream.wait(LONG)
            state = stream._state
            with torch.inference_mode():
                seen.append((perceived(state), content(state)))
            stream.close()
    for ours, theirs in zip(seen[0][1], seen[1][1], strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_question_about_before_the_crash_is_answered_as_before_it(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with agent.watch(frames(40), store=str(folder)) as stream:
        stream.wait(LONG)
    said = []
    for _ in range(2):
        with agent.resume(folder) as past:
            answer = past.ask("what was there?", between=(2.0, 5.0), temperature=0.9, seed=3)
            said.append((answer.text(LONG), answer.recalled, answer.as_of))
    assert said[0] == said[1]
    assert said[0][1] and said[0][2] is not None and said[0][2] > 10


@pytest.mark.parametrize(
    ("question", "between", "options", "alone"),
    [
        ("what was there?", (2.0, 5.0), {}, True),
        ("what was there at 0:03?", None, {}, True),
        ("what was there at 0:03?", None, {"keep_window": True}, False),
        ("what was there at 0:18?", None, {}, False),  # that is in the window
        ("is what was there at 0:03 still there?", None, {}, False),  # that is about the present, too
        ("what is there?", None, {}, False),
    ],
)
def test_a_question_about_what_has_left_the_window_sees_that_and_not_the_window(
    agent: Agent, tmp_path: Path, question: str, between: tuple[float, float] | None, options: Options, alone: bool
) -> None:
    """Two streams that differ only in what came after: asked about before, they say the same."""
    said = []
    for later in (2, 3):
        shown = [*list(frames(16, seed=1)), *list(frames(40, seed=later))[16:]]
        with agent.watch(iter(shown), store=str(tmp_path / str(later)), **options) as stream:
            stream.wait(LONG)
            answer = stream.ask(question, between=between, temperature=1.0, seed=6)
            said.append(answer.text(LONG))
            assert bool(answer.in_view) != alone, "pictures of the window are evidence only where it was seen"
    assert said[0] == said[1] or not alone


def test_a_quota_drops_the_oldest_and_what_is_left_is_still_found(agent: Agent, tmp_path: Path) -> None:
    with agent.watch(frames(240), store=str(tmp_path / "m"), store_quota_mb=1) as stream:
        stream.wait(LONG)
        assert stream._state.memory is not None and stream._state.memory._spiller.drain(LONG)
        stream.ask("one more step, so that the counters are taken").text(LONG)
        stats = stream.stats
        assert stats.tokens_dropped > 0 and stats.tokens_stored > 0
        assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped
        assert stats.tokens_stored == stream._state.memory.store.stats().tokens
        assert not stream.recall("what was there?", between=(4.0, 8.0)), "that was dropped"
        assert stream.recall("what was there?", between=(100.0, 105.0))


def test_a_store_can_be_searched_by_another_method_later(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with agent.watch(frames(30), store=str(folder)) as stream:
        stream.wait(LONG)
    for method in ("pages", "mean_key"):
        with agent.resume(folder, retrieve_method=method) as past:
            assert past.recall("anything", between=(2.0, 5.0))


def test_a_broken_search_costs_the_memory_and_not_the_answer(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent.watch(frames(30), store=str(tmp_path / "m")) as stream:
        stream.wait(LONG)
        memory = stream._state.memory
        assert memory is not None

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(memory.store.catalogue, "find", broken)
        answer = stream.ask("what was there?", between=(2.0, 5.0))
        answer.text(LONG)
        assert answer.status in ("complete", "truncated") and not answer.recalled


def test_refusals_are_clear(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(StoreError, match="holds no memory"):
        agent.resume(folder)
    with agent.watch(frames(20), store=str(folder)) as stream:
        stream.wait(LONG)
        with pytest.raises(StoreError):
            agent.resume(folder)
        with pytest.raises(ValueError, match="0 <= start < stop"):
            stream.ask("what?", between=(5.0, 2.0))
    with pytest.raises(ValueError, match="has nothing to store"):
        agent.watch(frames(2), store=str(tmp_path / "x"), policy="last_frames")
    with agent.watch(frames(2)) as plain, pytest.raises(ValueError, match="keeps nothing"):
        plain.recall("anything")
    with Agent(random_model("qwen2_5_vl"), watch=STORED) as other, pytest.raises(FingerprintError):
        other.resume(folder)
    with Agent(random_model("qwen2_5_vl"), watch=STORED) as other, pytest.raises(FingerprintError):
        other.watch(frames(2), store=str(folder))
