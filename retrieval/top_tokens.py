"""The most-attended rows of a block (InfLLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.retrieval.representatives import Method


@dataclass(frozen=True, slots=True)
class TopTokens(Method):
    """The r rows that received most attention stand for a block. InfLLM (Xiao et al., NeurIPS 2024, arXiv 2402.04617).

        v[l, kv] = mean of k[l, kv, t] over the r rows t with the highest received attention, per head
        s[l] = Σ_h q[l, h] · v[l, kv(h)]

    InfLLM sums q · k over the r rows; the mean differs by the constant factor r. Without `received`, the r keys of the
    smallest L2 norm are taken, which tend to receive the most attention (Devoto et al., EMNLP 2024, arXiv 2406.11430);
    rotation leaves norms alone. Models that normalise keys (Qwen3) make that stand-in weak.
    """

    rows: int = 4
    name: ClassVar[str] = "top_tokens"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}, must be at least 1")

    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """[layers, 1, kv_heads · head_dim]."""
        keys = keys.float()
        weight = -keys.norm(dim=-1) if received is None else received
        if weight.shape != keys.shape[:-1]:
            raise ValueError(f"received is {tuple(weight.shape)}, must be {tuple(keys.shape[:-1])}")
        top = weight.topk(min(self.rows, keys.shape[2]), dim=-1).indices
        chosen = keys.gather(2, top.unsqueeze(-1).expand(-1, -1, -1, keys.shape[-1]))
        return chosen.mean(2).flatten(1).unsqueeze(1)
