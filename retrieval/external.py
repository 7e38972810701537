"""ExternalRetriever: blocks found by an embedding of pictures and text (CLIP, SigLIP) instead of the model's keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.retriever import catch_up
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

    def vectors(self, embeddings: Tensor | None) -> Tensor:
        """What the index holds of a block, [1, n, dim], from the embeddings [n, dim] of its frames.

        A block of which there is no picture is like nothing: only a question that names its time finds it.
        """
        return torch.zeros(1, 1, self.embedder.dim) if embeddings is None else _unit(embeddings).unsqueeze(0)

    def add(self, block_id: int, stream: str, start: float, stop: float, frames: Tensor | None) -> None:
        """Index a block by its frames, uint8 [n, 3, H, W]. Raises as `Index.add`."""
        embeddings = None if frames is None else self.embedder.embed_frames(frames)
        self.index.add(block_id, stream, start, stop, self.vectors(embeddings))

    def catch_up(
        self, stream: str, stored: Iterable[int], read: Callable[[int], tuple[float, float, Tensor | None]]
    ) -> tuple[int, int]:
        """Make the index hold exactly the blocks `stored`; returns (added, removed).

        `read` gives a block's start, stop and frames, as `add` takes them.
        """
        return catch_up(self.index, stream, stored, lambda block_id: self.add(block_id, stream, *read(block_id)))

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
