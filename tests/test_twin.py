"""The sink-forward cache against a twin that keeps every key un-rotated and rotates all of them at every step."""

from __future__ import annotations

import pytest
import torch
from driver import Driver, content, random_blocks, window_of
from families import FAMILIES, random_model
from torch import Tensor
from torch.testing import assert_close
from transformers import Cache

from streamvlm.engine.questions import Perception
from streamvlm.engine.step import StreamWork, prepare_step
from streamvlm.memory.policies import SinkWindow
from streamvlm.memory.slots import CacheShape, SlotCache, rotate
from streamvlm.memory.window import Window
from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.types import Kind, Segment


class TwinCache(Cache):  # type: ignore[misc]
    """Un-rotated keys of the kept rows, laid out contiguously and rotated afresh for every forward."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__(layers=[])
        self.model = model
        self.segments: list[Segment] = []
        layers = model.text_spec.layers
        self.keys: list[list[Tensor]] = [[] for _ in range(layers)]  # per layer, per segment
        self.values: list[list[Tensor]] = [[] for _ in range(layers)]

    def evict(self, gone: list[int]) -> None:
        kept = [i for i in range(len(self.segments)) if i not in gone]
        self.segments = [self.segments[i] for i in kept]
        self.keys = [[layer[i] for i in kept] for layer in self.keys]
        self.values = [[layer[i] for i in kept] for layer in self.values]

    def angles(self, segments: list[Segment]) -> tuple[Tensor, Tensor, Tensor]:
        cursor, parts = 0, []
        for segment in segments:
            parts.append(segment.positions + cursor)
            cursor += segment.extent
        positions = torch.cat(parts)
        return positions, *self.model.rotary(positions)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *a: object, **k: object
    ) -> tuple[Tensor, Tensor]:
        _, cos, sin = self.angles(self.segments)
        n = key_states.shape[2]
        self.keys[layer_idx].append(rotate(key_states[0], cos[-n:], -sin[-n:]))
        self.values[layer_idx].append(value_states[0])
        keys = rotate(torch.cat(self.keys[layer_idx], dim=1), cos, sin)
        return keys[None], torch.cat(self.values[layer_idx], dim=1)[None]

    def prefill(self, segment: Segment) -> None:
        self.segments.append(segment)
        positions, _, _ = self.angles(self.segments)
        n, total = len(segment), len(positions)
        mask = torch.ones(n, total, dtype=torch.bool).tril(total - n)[None, None]
        batch = LanguageInput(segment.embeds[None], positions[None, -n:], segment.visual[None], segment.deepstack)
        self.model.language(batch, cache=self, attention_mask=mask)


def make_window(model: VisionLanguageModel, rebase_at: int) -> Window:
    spec = model.text_spec
    shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, 1200)
    policy = SinkWindow(seconds=4.0, text_tokens=30)
    return Window(SlotCache(shape, model.rotary), policy, max_tokens=600, rebase_at=rebase_at)


def perceive(model: VisionLanguageModel, window: Window, segments: list[Segment]) -> None:
    class Stream:  # what a step needs of a stream
        pass

    stream = Stream()
    stream.window = window  # type: ignore[attr-defined]
    perception = Perception(None, window.advance(segments))
    prepare_step([StreamWork(stream, perception, (), window)], model, "sdpa")()  # type: ignore[arg-type]
    window.commit()
    window.check()


@pytest.mark.parametrize("rebase_at", [8192, 120])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_forty_evicting_rounds_equal_the_unrotated_twin(family: str, rebase_at: int) -> None:
    """Vision, sinks and text, 50 rounds, the window changing at nearly every one; also with re-basing."""
    model = random_model(family)
    window, twin = make_window(model, rebase_at), TwinCache(model)
    prefix = model.text_segment(model.prefix_layout(), Kind.SINK)
    evicting, highest = 0, 0
    for i, block in enumerate(random_blocks(model, 50)):
        segments = [prefix] if i == 0 and len(prefix) else []
        if i % 5 == 2:
            segments.append(model.text_segment(model.text_layout(f"note {i}"), Kind.TEXT, block.tokens.pts))
        segments.append(model.frame_segment(block.tokens))
        before = list(window.entries)
        perceive(model, window, segments)
        gone = [j for j, entry in enumerate(before) if entry not in window.entries]
        evicting += bool(gone)
        twin.evict(gone)
        for segment in segments:
            twin.prefill(segment)
        highest = max(highest, window.cursor)
        slots = torch.cat([e.slots for e in window.entries])
        for layer in range(model.text_spec.layers):
            assert_close(window.cache.unrotated(slots)[layer], torch.cat(twin.keys[layer], dim=1), atol=1e-4, rtol=0)
            assert_close(window.cache.values[layer][:, slots], torch.cat(twin.values[layer], dim=1), atol=1e-4, rtol=0)
    assert evicting >= 40
    assert (highest > 300) == (rebase_at == 8192), "positions were to be re-based in one run and not in the other"


@pytest.mark.parametrize("family", FAMILIES)
def test_rebasing_changes_nothing(family: str) -> None:
    """Nor for an answer that is being written while everything is shifted under it."""
    model = random_model(family)
    blocks = random_blocks(model, 40)
    runs = []
    for rebase_at in (8192, 100):
        driver = Driver(model)
        stream = driver.watch(blocks, window_seconds=4.0, rebase_at=rebase_at, max_answer_tokens=24)
        driver.step(8)
        answer = driver.ask(stream, "what happened to it?", temperature=0.8, seed=3)
        driver.run()
        logits = torch.stack(driver.recordings[answer].logits)
        runs.append((window_of(stream).cursor, logits, content(stream)))
    (far, expected, kept), (near, ours, shifted) = runs
    assert near < 250 < far
    assert_close(ours, expected, atol=1e-4, rtol=0)
    for a, b in zip(shifted, kept, strict=True):
        assert_close(a, b, atol=1e-4, rtol=0)
