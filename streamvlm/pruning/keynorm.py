"""Key-norm compression: small keys are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.memory.blocks import KVBlock
from streamvlm.pruning.protocols import KVCompressor, StreamFacts, best


@dataclass(frozen=True, slots=True)
class KeyNorm:
    """QuickVideo's QuickPrefill rule (arXiv:2505.16175): of a block keep the rows with the smallest key norms.

    The norm is over all heads, as published; the rank is the mean over layers, because a row has one place for all of
    them. Rotation does not change a norm. Text is never a candidate.
    """

    name: ClassVar[str] = "keynorm"
    paper: ClassVar[str] = "QuickVideo, arXiv:2505.16175"

    keep: float = 0.5  # share of a block's vision rows

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keynorm: keep must be in (0, 1], got {self.keep}")

    def start(self, facts: StreamFacts) -> KVCompressor:
        """The compressor of one stream."""
        return _KeyNorm(self)


class _KeyNorm:
    def __init__(self, settings: KeyNorm) -> None:
        self._settings = settings

    def reset(self) -> None:
        """Nothing to forget."""

    def plan(self, block: KVBlock, vision: Tensor) -> Tensor:
        """The rows with the smallest keys."""
        norms = block.keys.float().square().sum((1, 3)).sqrt()  # [layers, n]
        relative = norms / norms.mean(1, keepdim=True).clamp(min=1e-12)
        return chosen(-relative.mean(0), vision, self._settings.keep)


def chosen(score: Tensor, vision: Tensor, keep: float) -> Tensor:
    """bool [n]: that share of the vision rows with the highest `score` [n], and everything else."""
    rows = vision.nonzero().squeeze(1)
    kept = ~vision
    kept[rows[best(score.cpu()[rows], math.ceil(keep * len(rows)))]] = True
    return kept


def places(block: KVBlock) -> list[tuple[int, int]]:
    """The place of every row on its frame's grid: its (h, w) position, which compression does not change."""
    return [(int(h), int(w)) for h, w in block.positions[:, 1:].tolist()]


def unit_keys(block: KVBlock) -> Tensor:
    """float32 [layers, kv_heads, n, head_dim], un-rotated keys of length 1."""
    return torch.nn.functional.normalize(block.keys.float(), dim=3)
