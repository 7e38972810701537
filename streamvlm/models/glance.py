"""Glance: where in a picture the answer to a question is looked for, by the model's own attention.

The rows of a picture and of a question go through the language model once, beside the engine and without a cache. What
the last row, from which the answer's first word would be chosen, attends to says which places matter to the question.
Comparing projected vision tokens with the question's embedding, as CLIP is used for it elsewhere, would be cheaper; but
nothing trains a projector for that, and with the embedded model it finds things much more rarely.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.types import VisionTokens


@dataclass(slots=True, eq=False)
class Glance:
    """Computes the attention of one pass by itself, plain and causal, and remembers what its last row attends to."""

    visual: Tensor  # bool [rows], those of the picture
    layers: list[Tensor] = field(default_factory=list)  # float32 [picture's rows] each, of all that goes to the picture

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[1, heads, rows, head_dim] for queries of that shape and keys and values [1, kv_heads, rows, head_dim]."""
        shared = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(shared, 1) for part in (key, value))
        later = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device).triu(1)
        scores = (query @ key.transpose(2, 3)).float() * scale
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        seen = weights[0, :, -1, self.visual.to(weights.device)].mean(0)
        self.layers.append(seen / seen.sum().clamp(min=1e-12))
        return weights.to(value.dtype) @ value

    @property
    def share(self) -> Tensor:
        """float32 [picture's rows], mean over the layers; sums to 1."""
        return torch.stack([layer.cpu() for layer in self.layers]).mean(0)


def glance(model: VisionLanguageModel, tokens: VisionTokens, question: str) -> tuple[Tensor, int]:
    """How much each token matters to a question: float32 [tokens], summing to 1; and how many rows that took."""
    segments = [
        model.text_segment(model.prefix_layout()),
        model.frame_segment(tokens),
        model.question_segment(question, tokens.pts),
    ]
    positions, cursor = [], 0
    for segment in segments:
        positions.append(segment.positions + cursor)
        cursor += segment.extent
    visual = torch.cat([s.visual for s in segments])
    batch = LanguageInput(
        embeds=torch.cat([s.embeds for s in segments])[None].to(model.dtype),
        positions=torch.cat(positions)[None].to(model.device),
        visual=visual[None].to(model.device),
        deepstack=tokens.deepstack,
    )
    seen = Glance(visual)
    model.language(batch, step=seen)
    return seen.share, len(visual)
