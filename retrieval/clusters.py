"""Clusters of similar rows (V-Rex)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.retrieval.representatives import Method, by_row


@dataclass(frozen=True, slots=True)
class Clusters(Method):
    """Means of clusters of similar keys. ReSV of V-Rex (arXiv 2512.12284).

        v[l, c] = concat_kv mean of k[l, kv, t] over rows t of cluster c     s[l] = max_c Σ_h q[l, h] · v[l, c, kv(h)]

    A row joins the first cluster whose leader is similar enough and otherwise leads a new one; once there are `most`,
    it joins the most similar. Similarity is the cosine or, with `bits`, its estimate cos(π · Hamming / bits) from the
    signs of random projections, which is ReSV's hash. ReSV clusters each layer and head across frames; here rows are
    clustered over all layers at once, within a block, so that the clusters of different layers mean the same rows.
    ReSV selects by threshold instead of top-k: `selection.Mass`.
    """

    similarity: float = 0.9
    most: int = 8
    bits: int = 0  # 0: exact cosine
    name: ClassVar[str] = "clusters"

    def __post_init__(self) -> None:
        if not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity is {self.similarity}, must be from -1 to 1")
        if self.most < 1 or self.bits < 0:
            raise ValueError(f"most is {self.most}, must be at least 1; bits is {self.bits}, must be at least 0")

    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """[layers, clusters, kv_heads · head_dim]."""
        rows = by_row(keys)
        members = self._members(self._similarities(rows.transpose(0, 1).flatten(1)))
        return torch.stack([rows[:, group].mean(1) for group in members], dim=1)

    def _similarities(self, rows: Tensor) -> Tensor:
        if self.bits:
            generator = torch.Generator().manual_seed(0)
            planes = torch.randn(rows.shape[1], self.bits, generator=generator).to(rows.device)
            signs = (rows @ planes).sign()
            return torch.cos(math.pi * (1 - signs @ signs.T / self.bits) / 2)
        unit = torch.nn.functional.normalize(rows, dim=1)
        return unit @ unit.T

    def _members(self, similarities: Tensor) -> list[list[int]]:
        groups: list[list[int]] = []
        for row, similar in enumerate(similarities.tolist()):
            to_leaders = [similar[group[0]] for group in groups]
            joined = next((i for i, s in enumerate(to_leaders) if s >= self.similarity), None)
            if joined is None and len(groups) == self.most:
                joined = max(range(self.most), key=to_leaders.__getitem__)
            if joined is None:
                groups.append([row])
            else:
                groups[joined].append(row)
        return groups
