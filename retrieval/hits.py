"""Hits: what a search found, and the one rule for ranking blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The best blocks, best first: one row of them, or one per layer where layers choose for themselves."""

    blocks: Tensor  # int64 [1 or layers, n], n <= k
    scores: Tensor  # float32, same shape
    starts: Tensor  # float64, seconds
    stops: Tensor  # float64, seconds

    def __len__(self) -> int:
        return int(self.blocks.shape[1])


def best(scores: NDArray[np.float32], entries: NDArray[np.void], k: int) -> Hits:
    """The `k` best of `entries` by `scores` [rows, n]. Ties go to the newer block, then to the higher id."""
    k = min(k, len(entries))
    picked = np.empty((len(scores), k), np.int64)
    for row, values in enumerate(scores):
        near = np.arange(len(values))
        if k and k < len(values):
            near = np.flatnonzero(values >= np.partition(values, -k)[-k])  # the k best, and all that tie with the last
        order = np.lexsort((-entries["block"][near], -entries["start"][near], -values[near]))
        picked[row] = near[order[:k]]
    return Hits(
        torch.from_numpy(entries["block"][picked]),
        torch.from_numpy(np.take_along_axis(scores, picked, axis=1).astype(np.float32)),
        torch.from_numpy(entries["start"][picked]),
        torch.from_numpy(entries["stop"][picked]),
    )
