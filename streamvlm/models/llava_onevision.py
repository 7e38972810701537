"""LLaVA-OneVision (Qwen2 text, SigLIP tower): one position axis, frames pooled to a fixed grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from streamvlm.models.base import Layout, VisionLanguageModel


class LlavaOneVision(VisionLanguageModel):
    """Adapter for `LlavaOnevisionForConditionalGeneration`.

    A video ends with one learned newline row. A stream has no end, so the newline opens every question,
    which gives each reader the rows of the official offline prompt.
    """

    family = "llava_onevision"

    @property
    def language_model(self) -> Any:  # noqa: ANN401
        return self.module.model.language_model

    @property
    def video_token(self) -> int:
        return int(self.module.config.video_token_id)

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.pixels.merged_grid(height, width)
        return math.ceil(rows / 2), math.ceil(columns / 2)

    def frame_layout(self, grid: tuple[int, int], pts: float) -> Layout:
        n = grid[0] * grid[1]
        positions = torch.arange(n).unsqueeze(1).expand(-1, 3).contiguous()
        return Layout(torch.full((n,), self.video_token), positions, torch.ones(n, dtype=torch.bool), n)

    def question_layout(self, question: str) -> Layout:
        text = super().question_layout(question)
        newline = torch.tensor([self.video_token])
        steps = torch.arange(len(text) + 1).unsqueeze(1).expand(-1, 3).contiguous()
        visual = torch.zeros(len(text) + 1, dtype=torch.bool)
        return Layout(torch.cat((newline, text.ids)), steps, visual, len(text) + 1)

    def embed_rows(self, ids: Tensor, visual: Tensor) -> Tensor:
        embeds = self.embed(ids)
        newline = (ids.to(embeds.device) == self.video_token) & ~visual.to(embeds.device)
        return torch.where(newline.unsqueeze(-1), self.module.model.image_newline.to(embeds.dtype), embeds)

    def tower_features(self, pixels: Sequence[Tensor]) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        model, config = self.module.model, self.module.config
        every = torch.cat(list(pixels))  # the tower has one size of its own, whatever the frames had
        out = model.get_video_features(
            every.unsqueeze(0).to(model.vision_tower.dtype),
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            return_dict=True,
        )
        rows, columns = self.token_grid(*every.shape[2:])
        features = out.pooler_output.flatten(0, -2)[: len(every) * rows * columns]  # without a newline that may follow
        shaped = features.view(len(every), rows * columns, -1)
        return [(part, ()) for part in shaped.split([len(p) for p in pixels])]

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        rotary = self.language_model.rotary_emb
        probe = torch.empty(0, device=positions.device, dtype=torch.float32)
        cos, sin = rotary(probe, positions[:, 0].unsqueeze(0))
        return cos[0] / rotary.attention_scaling, sin[0] / rotary.attention_scaling

    def position_ids(self, positions: Tensor) -> Tensor:
        return positions[..., 0]
