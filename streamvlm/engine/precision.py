"""What storing in fewer bits changes: the output of attention and the next token, with a model's own keys and queries.

KIVI (arXiv 2402.02750) and KVQuant (arXiv 2401.18079) find that it depends on the model, whose keys may have channels
far from the others; so it is measured with the model that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.engine.capacity import StreamSize, open_window, plan_budget
from streamvlm.memory.blocks import BlockRun, KVBlock
from streamvlm.memory.codecs import LayerLayout, decode, encode
from streamvlm.memory.leaving import Leaving
from streamvlm.memory.recalling import recall
from streamvlm.memory.rows import Rows
from streamvlm.memory.slots import SlotCache, rotate
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe, Probing, StepCache, make_group
from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.settings import Codec, WatchConfig
from streamvlm.types import Kind, Segment
from streamvlm.vision import overlapped


@dataclass(frozen=True, slots=True)
class CodecErrors:
    """How far an answer that is shown stored blocks in one codec is from the same in another."""

    attention: tuple[float, ...]  # per layer, of its output for the question's last row: Euclidean, relative
    kl: float  # nats, of the distribution of the answer's first token


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A question that was read: what its last row asks for, sees and says."""

    queries: Tensor  # float32 [layers, heads, head_dim], rotated
    keys: Tensor  # float32 [layers, kv_heads, n, head_dim], rotated
    values: Tensor  # float32 [layers, kv_heads, n, head_dim]
    said: Tensor  # float64 [vocabulary], log-probabilities


@torch.inference_mode()
def codec_errors(
    model: VisionLanguageModel,
    frames: Tensor,
    question: str,
    codec: Codec = "int8",
    *,
    fps: float = 1.0,
    window_seconds: float = 4.0,
) -> CodecErrors:
    """What `codec` changes against fp16 for a question, all that left the window being brought back.

    `frames` are uint8 [n, 3, H, W], n a multiple of the new frames in a patch of the model and longer than the window.

    Raises:
        ValueError: nothing leaves the window.
    """
    window, left = _watch(model, frames, fps, window_seconds)
    if not left:
        raise ValueError(f"nothing has left the window of {window_seconds} s after {len(frames) / fps} s")
    exact, coarse = (_ask(model, window, question, [_through(name, b) for b in left]) for name in ("fp16", codec))
    outputs = [_attend(exact.queries, read.keys, read.values) for read in (exact, coarse)]
    errors = (outputs[1] - outputs[0]).flatten(1).norm(dim=1) / outputs[0].flatten(1).norm(dim=1)
    kl = float((exact.said.exp() * (exact.said - coarse.said)).sum())
    return CodecErrors(tuple(errors.tolist()), max(0.0, kl))


def _watch(
    model: VisionLanguageModel, frames: Tensor, fps: float, window_seconds: float
) -> tuple[Window, list[KVBlock]]:
    """The window at the end of these frames, and what left it."""
    spec = model.pixels
    patch = spec.advance
    spans = [(i * patch / fps, patch / fps) for i in range(len(frames) // patch)]
    patches = overlapped(frames, frames[:1].repeat_interleave(spec.overlap, 0), spec)
    seen = [model.frame_segment(tokens) for tokens in model.encode(patches, spans)]
    prefix = model.text_segment(model.prefix_layout(), Kind.SINK)
    rows = sum(len(segment) for segment in seen)
    config = WatchConfig(fps=fps, window_seconds=window_seconds, store="-", retrieve_tokens=rows, max_readers=1)
    window = open_window(model, config, plan_budget(config, StreamSize(len(prefix), len(seen[0]), patch)))
    left: list[KVBlock] = []

    def keep(leaving: Leaving) -> bool:
        left.append(leaving.block())
        return True

    window.on_evict = keep
    for first, segment in enumerate(seen):
        opening = [prefix] if first == 0 and len(prefix) else []
        _forward(model, window.cache, window.advance([*opening, segment]))
        window.commit()
    return window, left


def _ask(model: VisionLanguageModel, window: Window, question: str, blocks: Sequence[KVBlock]) -> _Read:
    """Read a question that is shown these blocks; the window is left as it was."""
    cache, reader = window.cache, window.open_reader()
    recall(window, reader, [BlockRun.of(blocks)])
    segment = model.question_segment(question, 0.0)
    rows = cache.place_private(reader, segment.positions, segment.extent)
    cos, sin = model.rotary(rows.positions[-1:].to(model.device))
    probe = Probe.of(model.text_spec.layers)
    probe.rows = 1
    last = slice(len(segment) - 1, len(segment))
    hidden = _forward(model, cache, [(segment, rows)], Probing(probe, last, cos, sin))
    seen = cache.visible(rows, cache.extent)[-1].nonzero().squeeze(1).to(model.device)
    queries = rotate(probe.query.unsqueeze(2), cos, sin).squeeze(2)
    keys, values = cache.keys[:, :, seen].float(), cache.values[:, :, seen].float()
    said = model.logits(hidden[-1:])[0].double().log_softmax(-1)
    window.close_reader(reader)
    return _Read(queries, keys, values, said)


def _forward(
    model: VisionLanguageModel, cache: SlotCache, placed: Sequence[tuple[Segment, Rows]], probing: Probing | None = None
) -> Tensor:
    """Hidden states [n, hidden] of rows, which are written to the cache."""
    segments = [segment for segment, _ in placed]
    count = sum(len(segment) for segment in segments)
    probes = [] if probing is None else [probing]
    group = make_group(cache, slice(0, count), [rows for _, rows in placed], "sdpa", probes)
    injected = [segment.deepstack for segment in segments if segment.deepstack]
    batch = LanguageInput(
        embeds=torch.cat([segment.embeds for segment in segments])[None].to(model.dtype),
        positions=torch.cat([rows.positions for _, rows in placed])[None].to(model.device),
        visual=torch.cat([segment.visual for segment in segments])[None].to(model.device),
        deepstack=tuple(torch.cat(layer) for layer in zip(*injected, strict=True)),
    )
    hidden: Tensor = model.language(batch, cache=StepCache([group]), step=[group])[0]
    return hidden


def _through(codec: str, block: KVBlock) -> KVBlock:
    layout = LayerLayout.of(codec, block.shape, len(block))
    return block.about.block(*decode(layout, encode(codec, block.keys, block.values)), -1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention's output [layers, heads, head_dim]."""
    layers, heads, dim = queries.shape
    grouped = queries.view(layers, keys.shape[1], heads // keys.shape[1], dim)
    weights = (grouped @ keys.transpose(2, 3) / dim**0.5).softmax(-1)
    outputs: Tensor = weights @ values
    return outputs.reshape(layers, heads, dim)
