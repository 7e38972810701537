"""Pages of a few rows (LiveVLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.retrieval.representatives import Method, by_row


@dataclass(frozen=True, slots=True)
class Pages(Method):
    """Mean keys of consecutive rows, scored without positions. LiveVLM's page retrieval (arXiv 2505.15269).

        v[l, j] = concat_kv mean of k[l, kv, t] over rows t of page j        s[l] = max_j Σ_h q[l, h] · v[l, j, kv(h)]

    LiveVLM loads single pages; here a block is loaded whole, for the sake of its best page. The last page may be short.
    """

    rows: int = 16
    name: ClassVar[str] = "pages"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}, must be at least 1")

    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """[layers, ceil(n / rows), kv_heads · head_dim]."""
        return torch.stack([page.mean(1) for page in torch.split(by_row(keys), self.rows, dim=1)], dim=1)
