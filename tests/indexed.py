"""Indexes of random vectors, and what they should find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.stream_index import IndexSettings

LAYERS, HEADS, KV_HEADS, DIM = 3, 4, 2, 4
WIDTH = KV_HEADS * DIM
CAM = "cam/1"


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def open_index(path: Path, settings: IndexSettings | None = None, width: int = WIDTH) -> Index:
    return Index(path, layers=LAYERS, width=width, settings=settings)


def fill(index: Index, count: int, seconds: float = 60.0, most: int = 3) -> list[Tensor]:
    """Blocks 0, 1, … of `seconds` each, with one to `most` vectors."""
    vectors = [noise(LAYERS, 1 + i % most, WIDTH, seed=i) for i in range(count)]
    for i, v in enumerate(vectors):
        index.add(i, CAM, seconds * i, seconds * (i + 1), v)
    return vectors


def brute(query: Tensor, vectors: Sequence[Tensor], selection: str) -> Tensor:
    """Scores [1 or layers, blocks] by the definition."""
    per_vector = [torch.einsum("lw,lmw->lm", query, v) for v in vectors]
    if selection == "shared":
        return torch.stack([s.mean(0).max() for s in per_vector])[None]
    return torch.stack([s.max(1).values for s in per_vector], dim=1)


def same(a: Hits, b: Hits) -> bool:
    return torch.equal(a.blocks, b.blocks) and torch.allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class StoredKeys:
    """What the retriever needs of a stored block."""

    keys: Tensor
    start: float

    @property
    def stop(self) -> float:
        return self.start + 2
