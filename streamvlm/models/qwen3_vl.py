"""Qwen3-VL: interleaved M-RoPE, deepstack, and time told as text before every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streamvlm.models.base import LanguageInput, Layout, VisionLanguageModel
from streamvlm.vision import patchify


def grid_positions(rows: int, columns: int, offset: int) -> Tensor:
    """int64 [rows·columns, 3]: t constant, h and w the raster coordinates, all from `offset`."""
    h = torch.arange(rows).repeat_interleave(columns)
    w = torch.arange(columns).repeat(rows)
    return torch.stack((torch.zeros_like(h), h, w), dim=1) + offset


def delimited_frame(before: list[int], grid: tuple[int, int], after: list[int], placeholder: int) -> Layout:
    """Text, a one-frame vision grid, text: the M-RoPE rule shared by the Qwen-VL families."""
    rows, columns = grid
    head, body = len(before), rows * columns
    ids = torch.tensor([*before, *[placeholder] * body, *after], dtype=torch.int64)
    tail_start = head + max(rows, columns)
    positions = torch.cat(
        (
            torch.arange(head).unsqueeze(1).expand(-1, 3),
            grid_positions(rows, columns, head),
            torch.arange(tail_start, tail_start + len(after)).unsqueeze(1).expand(-1, 3),
        )
    )
    visual = torch.zeros(len(ids), dtype=torch.bool)
    visual[head : head + body] = True
    return Layout(ids, positions, visual, tail_start + len(after))


class QwenVLModel(VisionLanguageModel):
    """What Qwen2.5-VL and Qwen3-VL share: patch rows, `grid_thw`, three-axis rotary positions."""

    @property
    def language_model(self) -> Any:  # noqa: ANN401
        return self.module.model.language_model

    @property
    def video_token(self) -> int:
        return int(self.module.config.video_token_id)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        rotary = self.language_model.rotary_emb
        probe = torch.empty(0, device=positions.device, dtype=torch.float32)
        cos, sin = rotary(probe, positions.T.unsqueeze(1))
        return cos[0] / rotary.attention_scaling, sin[0] / rotary.attention_scaling

    def tower_features(self, pixels: Sequence[Tensor]) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        spec, tower = self.pixels, self.module.model.visual
        blocks = [len(p) // spec.temporal for p in pixels]
        grids = [[1, p.shape[2] // spec.patch, p.shape[3] // spec.patch] for p in pixels]
        each = [grid for grid, many in zip(grids, blocks, strict=True) for _ in range(many)]
        patches = torch.cat([patchify(p, spec) for p in pixels]).to(tower.dtype)
        out = tower(patches, grid_thw=torch.tensor(each, device=patches.device), return_dict=True)
        injected = getattr(out, "deepstack_features", None) or ()
        rows = [many * grid[1] * grid[2] // spec.merge**2 for grid, many in zip(grids, blocks, strict=True)]
        parts = zip(*(layer.split(rows) for layer in (out.pooler_output, *injected)), strict=True)
        shaped = [[p.view(many, -1, p.shape[-1]) for p in part] for part, many in zip(parts, blocks, strict=True)]
        return [(embeds, tuple(deepstack)) for embeds, *deepstack in shaped]


class Qwen3VL(QwenVLModel):
    """Adapter for `Qwen3VLForConditionalGeneration`."""

    family = "qwen3_vl"

    @property
    def deepstack_layers(self) -> int:
        return len(self.module.config.vision_config.deepstack_visual_indexes)

    def time_words(self, pts: float) -> str:
        return f"<{pts:.1f} seconds>"

    def frame_layout(self, grid: tuple[int, int], pts: float) -> Layout:
        before = self.tokenize(f"{self.time_words(pts)}<|vision_start|>")
        return delimited_frame(before, grid, self.tokenize("<|vision_end|>"), self.video_token)

    def deepstack_arguments(self, batch: LanguageInput) -> dict[str, Any]:
        if not batch.deepstack:
            return {}
        return {"visual_pos_masks": batch.visual, "deepstack_visual_embeds": list(batch.deepstack)}
