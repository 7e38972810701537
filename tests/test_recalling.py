"""Blocks that differ from layer to layer: each layer sees its own, all at the same positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import FAMILIES, random_model
from test_agent import LONG, frames
from torch import Tensor
from torch.testing import assert_close

from streamvlm import Agent, SamplingConfig, WatchConfig
from streamvlm.engine.answer import Answer
from streamvlm.engine.reader import make_reader
from streamvlm.memory.blocks import BlockRun, KVBlock
from streamvlm.memory.recalling import recall
from streamvlm.memory.rows import LayerRows
from streamvlm.memory.slots import CacheShape, SlotCache
from streamvlm.models.attention import Backend, Group
from streamvlm.models.base import VisionLanguageModel

MIDDLE = 5  # entries of the window that are shown as recalled blocks


def run_of(blocks: Sequence[KVBlock], layer: int) -> BlockRun:
    """One layer of these blocks."""
    rows = slice(layer, layer + 1)
    return BlockRun.of([block.about.block(block.keys[rows], block.values[rows], -1) for block in blocks])


def share_of(layer: int) -> int:
    """How many of the last blocks a layer is shown: all of them in the first."""
    return MIDDLE - layer % MIDDLE


def written(model: VisionLanguageModel, backend: Backend, *, recalls: bool, patch: pytest.MonkeyPatch) -> Tensor:
    """Logits of an answer in whose layers more and more of the middle of the window is missing.

    With `recalls` it is brought back by layers. Without, nothing leaves, and attention is computed by hand with the
    missing entries masked.
    """
    driver = Driver(model, backend=backend)
    blocks = random_blocks(model, 10)
    stream = driver.watch(blocks, window_seconds=1000.0, max_answer_tokens=6, store="unused")
    driver.step(len(blocks))
    window = window_of(stream)
    answer = Answer("what was it?", None, lambda: None)
    reader = make_reader(model, window, answer, SamplingConfig(temperature=0.8, seed=4), 6)
    first = next(i for i, e in enumerate(window.entries) if not e.movable)
    middle = window.entries[first : first + MIDDLE]
    layers = range(model.text_spec.layers)
    if recalls:
        stored = [window.copy_of(e).block() for e in middle]
        for entry in middle:  # as if they had been evicted before the question
            window.cache.birth[entry.slots] = 10**9
        recall(window, reader.handle, [run_of(stored[MIDDLE - share_of(n) :], n) for n in layers])
    else:
        hidden = {
            n: torch.cat([*(e.slots for e in middle[: MIDDLE - share_of(n)]), torch.empty(0).long()]) for n in layers
        }

        def by_hand(group: Group, layer: int, query: Tensor, scale: float) -> Tensor:
            keys, values = (x[layer][:, : group.extent] for x in (group.cache.keys, group.cache.values))
            groups = query.shape[1] // keys.shape[0]
            assert isinstance(group.mask, Tensor)
            seen = group.mask[0, 0].clone()
            seen[:, hidden[layer]] = False
            scores = torch.einsum("hnd,hsd->hns", query[0], keys.repeat_interleave(groups, 0)) * scale
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            return torch.einsum("hns,hsd->hnd", weights, values.repeat_interleave(groups, 0))[None]

        patch.setattr(Group, "attend", by_hand)
    stream.readers.append(reader)
    answer.start(0.0, [])
    driver.engine._on_step = None
    driver.run()
    patch.undo()
    return torch.stack(driver.recordings[answer].logits)


@pytest.mark.parametrize(("family", "backend"), [*((f, "sdpa") for f in FAMILIES), ("qwen3_vl", "flex")])
@torch.inference_mode()
def test_layers_with_blocks_of_their_own(family: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(family)
    assert model.text_spec.layers > 1
    expected = written(model, "sdpa", recalls=False, patch=monkeypatch)
    assert_close(written(model, backend, recalls=True, patch=monkeypatch), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_every_layer_spans_the_same_positions() -> None:
    """Fewer rows end where the others' end; taking them back leaves nothing behind."""
    model = random_model("qwen3_vl")
    driver = Driver(model)
    blocks = random_blocks(model, 10)
    stream = driver.watch(blocks, window_seconds=4.0, max_answer_tokens=6, store="unused")
    left: list[KVBlock] = []
    driver.step(1)
    window_of(stream).on_evict = lambda leaving: not left.append(leaving.block())  # type: ignore[func-returns-value]
    driver.run()
    window, cache = window_of(stream), window_of(stream).cache
    free = cache.free
    reader = window.open_reader()
    layers = range(model.text_spec.layers)
    recall(window, reader, [run_of(left[:3] if n == 0 else left[1:2], n) for n in layers])
    state = cache.readers[reader]
    rows = state.slots[-1]
    assert len(rows) == sum(map(len, left[:3])) and set(state.absent) == set(layers) - {0}
    assert all(len(empty) == len(rows) - len(left[1]) for empty in state.absent.values())
    end = int(cache.position[rows].max())
    cos, sin = model.rotary(left[1].positions + end + 1 - left[1].extent)
    half = left[1].keys.shape[-1] // 2
    keys = left[1].keys[1].float()
    turned = keys * cos + torch.cat((-keys[..., half:], keys[..., :half]), -1) * sin
    assert_close(cache.keys[1][:, rows[len(state.absent[1]) :]], turned, atol=1e-5, rtol=1e-5)
    cache.check()
    window.close_reader(reader)
    window.check()
    assert cache.free == free


@pytest.mark.gpu
def test_blocks_are_loaded_onto_a_device() -> None:
    """Rows of fp16 from a disk become the same slots there as here, for all layers and for layers of their own."""
    rows, keys, values = 40, *torch.randn(2, 3, 2, 40, 16, generator=torch.Generator().manual_seed(1)).half()
    positions = torch.arange(rows).unsqueeze(1).expand(-1, 3).contiguous()

    def rotary(at: Tensor) -> tuple[Tensor, Tensor]:
        angles = at[:, :1].float() * torch.linspace(0.01, 1.0, 16, device=at.device)
        return angles.cos(), angles.sin()

    held = []
    for device in ("cpu", "cuda"):
        cache = SlotCache(CacheShape(3, 2, 16, 200, torch.float32, torch.device(device)), rotary)
        reader = cache.open_reader(100)
        cache.load(reader, keys, values, positions)
        cache.load_layers(reader, [LayerRows(keys[n, :, n:], values[n, :, n:], positions[n:]) for n in range(3)])
        cache.check()
        held.append((cache.keys.cpu(), cache.values.cpu()))
    for here, there in zip(*held, strict=True):
        assert_close(there, here, atol=1e-5, rtol=1e-5)


def test_a_stream_answers_with_layers_that_choose(tmp_path: Path) -> None:
    config = WatchConfig(window_seconds=3.0, max_answer_tokens=4, retrieve_tokens=60, retrieve_selection="per_layer")
    with Agent(random_model("qwen3_vl"), watch=config) as agent:
        with agent.watch(frames(40), store=str(tmp_path / "m")) as stream:
            stream.wait(LONG)
            answer = stream.ask("what was there?")
            answer.text(LONG)
            assert answer.status in ("complete", "truncated") and answer.unreadable == 0
            assert list(answer.recalled) == sorted(answer.recalled, key=lambda m: m.start) != []
        with agent.resume(tmp_path / "m") as past:
            assert past.recall("what was there?", between=(2.0, 5.0))
