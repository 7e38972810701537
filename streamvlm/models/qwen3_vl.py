"""Qwen3-VL: interleaved M-RoPE, deepstack, and time told as text before every frame."""

from __future__ import annotations

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

    def vision_features(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        blocks = pixels.shape[0] // self.pixels.temporal
        rows, columns = pixels.shape[2] // self.pixels.patch, pixels.shape[3] // self.pixels.patch
        grid = torch.tensor([[1, rows, columns]] * blocks, device=pixels.device)
        tower = self.module.model.visual
        patches = patchify(pixels, self.pixels).to(tower.dtype)
        out = tower(patches, grid_thw=grid, return_dict=True)
        injected = getattr(out, "deepstack_features", None) or ()
        deepstack = tuple(d.view(blocks, -1, d.shape[-1]) for d in injected)
        embeds = out.pooler_output
        return embeds.view(blocks, -1, embeds.shape[-1]), deepstack


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
