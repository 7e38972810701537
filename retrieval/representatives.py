"""How a block of keys is represented and scored: one interface, one small class per published method.

Every method reduces a block to a few vectors per layer, and a question to one vector per layer, such that the score is
an inner product; where a block has several vectors its best one counts. So one index serves all methods.

    per layer:  s[l, b] = max_j  q[l] · v[b, l, j]
    shared:     s[b]    = max_j  mean_l  q[l] · v[b, l, j]

Keys and queries are un-rotated: scoring without positions finds more (LiveVLM, MLVU: 68.1 against 64.8).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor


class Method(ABC):
    """How blocks are represented and questions compared with them. Subclasses are frozen dataclasses."""

    name: ClassVar[str]

    @abstractmethod
    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """Vectors float32 [layers, m, width] of a block with un-rotated keys [layers, kv_heads, n, head_dim].

        `received` is the attention each key received, [layers, kv_heads, n], where the method uses it. Vector j of
        every layer stands for the same rows of the block. m may differ from block to block.
        """

    def width(self, kv_heads: int, head_dim: int) -> int:
        """Numbers per vector."""
        return kv_heads * head_dim

    def project(self, query: Tensor, kv_heads: int) -> Tensor:
        """The question's vector, float32 [layers, width], from its mean un-rotated query [layers, heads, head_dim].

        A key is shared by its group of query heads, so summing their queries gives what the key expanded to every head
        would: Σ_h q_h · k_kv(h) = Σ_kv (Σ_{h of kv} q_h) · k_kv.

        Raises:
            ValueError: the query heads are no multiple of `kv_heads`.
        """
        layers, heads, dim = query.shape
        if heads % kv_heads:
            raise ValueError(f"{heads} query heads cannot share {kv_heads} key heads; they must be a multiple")
        return query.float().reshape(layers, kv_heads, heads // kv_heads, dim).sum(2).reshape(layers, -1)

    def score(self, query: Tensor, kv_heads: int, blocks: Sequence[Tensor], selection: str = "shared") -> Tensor:
        """Scores [blocks] ("shared") or [layers, blocks] ("per_layer"): the formulas above, without an index."""
        projected = self.project(query, kv_heads)
        columns = [torch.einsum("lw,lmw->lm", projected, vectors.float()) for vectors in blocks]
        if selection == "shared":
            return torch.stack([column.mean(0).max() for column in columns])
        return torch.stack([column.max(1).values for column in columns], dim=1)


def by_row(keys: Tensor) -> Tensor:
    """[layers, kv_heads, n, head_dim] to float32 [layers, n, kv_heads · head_dim]."""
    return keys.float().transpose(1, 2).flatten(2)
