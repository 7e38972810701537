"""ExternalRetriever: blocks found by an embedding of pictures and text (CLIP, SigLIP) instead of the model's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.shard import Span


class Embedder(Protocol):
    """Puts pictures and text into one space, where what belongs together has a high cosine."""

    @property
    def dim(self) -> int:
        """Numbers per embedding."""

    def embed_frames(self, frames: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] to [n, dim]."""

    def embed_text(self, text: str) -> Tensor:
        """A question or description to [dim]."""


class ExternalRetriever:
    """Retrieval by an `Embedder`: a block is as similar as its best frame. ReKV's "external" variant.

    Scores are cosines. The index has one layer of width `embedder.dim`; blocks are chosen for all layers at once.
    """

    def __init__(self, index: Index, embedder: Embedder) -> None:
        if (index.layers, index.width) != (1, embedder.dim):
            raise ValueError(f"the index is for [{index.layers}, {index.width}], must be for [1, {embedder.dim}]")
        self.index, self.embedder = index, embedder

    def add(self, block_id: int, stream: str, start: float, stop: float, frames: Tensor) -> None:
        """Index a block by its frames, uint8 [n, 3, H, W]. Raises as `Index.add`."""
        self.index.add(block_id, stream, start, stop, _unit(self.embedder.embed_frames(frames)).unsqueeze(0))

    def search(
        self,
        query: str,
        k: int,
        *,
        stream: str,
        spans: Sequence[Span] | None = None,
        selection: str = "shared",
    ) -> Hits:
        """The best blocks for a text. Either selection gives one row of hits. Raises as `Index.search`."""
        vector = _unit(self.embedder.embed_text(query)).unsqueeze(0)
        return self.index.search(vector, k, stream=stream, spans=spans, selection=selection)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.detach().float().cpu(), dim=-1)
