"""The official offline forward of a scene, and the same scene streamed through a window in chosen chunks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from families import random_model
from torch import Tensor

from streamvlm.memory.policies import FullAttention
from streamvlm.memory.rows import Rows
from streamvlm.memory.slots import CacheShape, SlotCache
from streamvlm.memory.window import Window
from streamvlm.models.attention import Backend, StepCache, make_group
from streamvlm.models.base import LanguageInput, Layout, VisionLanguageModel
from streamvlm.types import Kind, Segment
from streamvlm.vision import patchify


@lru_cache(maxsize=8)
def official(family: str, attention: str = "sdpa") -> Any:
    """The transformers model with the same weights, its attention its own."""
    module = copy.deepcopy(random_model(family).module)
    module.set_attn_implementation(attention)
    assert module.model.language_model.config._attn_implementation == attention
    return module


@dataclass(frozen=True, eq=False)
class Scene:
    """A short video and a question about it."""

    model: VisionLanguageModel
    frames: Tensor  # uint8 [blocks·t, 3, H, W]
    question: str

    @property
    def spans(self) -> list[tuple[float, float]]:
        t = self.model.pixels.temporal
        return [(i * 0.5 * t, 0.5 * t) for i in range(len(self.frames) // t)]

    def layouts(self) -> list[Layout]:
        """Every row in order: prefix, frames, question."""
        grid = self.model.token_grid(*self.frames.shape[2:])
        shown = [self.model.frame_layout(grid, pts) for pts, _ in self.spans]
        return [self.model.prefix_layout(), *shown, self.model.question_layout(self.question)]

    def perceived(self) -> list[Segment]:
        """What the stream prefills: prefix and frames."""
        prefix = self.model.text_segment(self.model.prefix_layout(), Kind.SINK)
        return [prefix, *(self.model.frame_segment(b) for b in self.model.encode(self.frames, self.spans))]

    def asked(self) -> Segment:
        """What the reader prefills."""
        return self.model.question_segment(self.question, 0.0)


def random_scene(family: str, blocks: int = 4, size: tuple[int, int] = (30, 52), seed: int = 0) -> Scene:
    """Noise that is wider than high, so that no two axes can be mixed up unseen."""
    model = random_model(family)
    generator = torch.Generator().manual_seed(seed)
    shape = (blocks * model.pixels.temporal, 3, *size)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Scene(model, frames, "what colour is the round thing?")


def token_rows(model: VisionLanguageModel, layouts: Sequence[Layout]) -> dict[str, Tensor]:
    """`input_ids` and, for the Qwen families, the type of every token (2 is video)."""
    ids = torch.cat([layout.ids for layout in layouts])[None]
    if model.family == "llava_onevision":
        return {"input_ids": ids}
    return {"input_ids": ids, "mm_token_type_ids": (ids == model.video_token).int() * 2}


def video_arguments(model: VisionLanguageModel, pixels: Tensor) -> dict[str, Tensor]:
    """Preprocessed pixels [n, 3, h, w] as the official forward takes them.

    For Qwen3-VL they are one video; for Qwen2.5-VL, in a stream, every temporal patch is a video of its own.
    """
    if model.family == "llava_onevision":
        return {"pixel_values_videos": pixels[None]}
    spec = model.pixels
    blocks, grid = len(pixels) // spec.temporal, (pixels.shape[2] // spec.patch, pixels.shape[3] // spec.patch)
    grids = [[blocks, *grid]] if model.family == "qwen3_vl" else [[1, *grid]] * blocks
    return {"pixel_values_videos": patchify(pixels, spec), "video_grid_thw": torch.tensor(grids)}


@torch.inference_mode()
def official_logits(scene: Scene, attention: str = "sdpa") -> Tensor:
    """The outer model's forward over the whole prompt, positions its own; logits of the question's rows."""
    layouts = scene.layouts()
    pixels = scene.model.preprocess(scene.frames)
    arguments = {**token_rows(scene.model, layouts), **video_arguments(scene.model, pixels)}
    logits: Tensor = official(scene.model.family, attention)(**arguments).logits[0]
    return logits[-len(layouts[-1]) :]


def cut(segments: Sequence[Segment], stops: Iterable[int]) -> list[list[Segment]]:
    """The segments' rows in chunks that end at the given row numbers and at the end."""
    total = sum(len(s) for s in segments)
    bounds = sorted({0, total, *(s for s in stops if 0 < s < total)})
    chunks = []
    for first, last in pairwise(bounds):
        chunk, at = [], 0
        for segment in segments:
            start, stop = max(first - at, 0), min(last - at, len(segment))
            if start < stop:
                chunk.append(segment.part(start, stop))
            at += len(segment)
        chunks.append(chunk)
    return chunks


class Streamed:
    """A window filled chunk by chunk through the packed step's own cache and attention."""

    def __init__(self, model: VisionLanguageModel, backend: Backend = "sdpa", capacity: int = 512) -> None:
        spec = model.text_spec
        shape = CacheShape(spec.layers, spec.kv_heads, spec.head_dim, capacity, model.dtype)
        self.model = model
        self.backend: Backend = backend
        self.window = Window(SlotCache(shape, model.rotary), FullAttention(), max_tokens=capacity)

    def perceive(self, chunk: Sequence[Segment]) -> None:
        self._forward(self.window.advance(chunk))
        self.window.commit()
        self.window.check()

    @torch.inference_mode()
    def read(self, question: Segment, stops: Iterable[int] = ()) -> Tensor:
        """Logits of every row of a question, prefilled by a reader in chunks."""
        reader = self.window.open_reader()
        logits = []
        for chunk in cut([question], stops):
            part = chunk[0]
            rows = self.window.cache.place_private(reader, part.positions, part.extent)
            logits.append(self.model.logits(self._forward([(part, rows)])))
        self.window.cache.close_reader(reader)
        self.window.check()
        return torch.cat(logits)

    @torch.inference_mode()
    def _forward(self, placed: Sequence[tuple[Segment, Rows]]) -> Tensor:
        segments, rows = [s for s, _ in placed], [r for _, r in placed]
        total = sum(len(s) for s in segments)
        group = make_group(self.window.cache, slice(0, total), rows, self.backend)
        injected = [s.deepstack for s in segments if s.deepstack]
        batch = LanguageInput(
            torch.cat([s.embeds for s in segments])[None],
            torch.cat([r.positions for r in rows])[None],
            torch.cat([s.visual for s in segments])[None],
            tuple(torch.cat(layer) for layer in zip(*injected, strict=True)),
        )
        return self.model.language(batch, cache=StepCache([group]), step=[group])[0]
