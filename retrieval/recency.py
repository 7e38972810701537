"""Recency, the baseline that does not look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.retrieval.representatives import Method


@dataclass(frozen=True, slots=True)
class Recency(Method):
    """The newest blocks, whatever is asked: every block scores 0, and ties go to the newer one."""

    name: ClassVar[str] = "recency"

    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """[layers, 1, 1] zeros."""
        return torch.zeros(keys.shape[0], 1, 1)

    def width(self, kv_heads: int, head_dim: int) -> int:
        """1."""
        return 1

    def project(self, query: Tensor, kv_heads: int) -> Tensor:
        """[layers, 1] zeros."""
        return torch.zeros(query.shape[0], 1)
