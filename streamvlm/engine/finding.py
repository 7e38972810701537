"""Finders: by which likeness a stream's stored blocks are found, by the model's own keys or by an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from streamvlm.engine.evidence import Search
from streamvlm.engine.looks import Look, picture_pixels
from streamvlm.memory.blocks import KVBlock
from streamvlm.memory.store import BlockStore
from streamvlm.models.base import VisionLanguageModel
from streamvlm.retrieval.external import Embedder, ExternalRetriever
from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.methods import method
from streamvlm.retrieval.retriever import KeyRetriever
from streamvlm.retrieval.shard import Span
from streamvlm.types import Frame, VisionTokens

STREAM = "stream"  # a folder holds one stream
EMBEDDING = "embedding"  # the method that needs no keys

Embed = Callable[[Sequence[Frame], VisionTokens], Tensor | None]
"""The embedding [dim] of a patch, from its frames and what the tower made of them; None: there is nothing of it."""


class Finder(Protocol):
    """Represents blocks in an index of its own, and searches it."""

    index: Index
    embed: Embed | None  # what must be kept of a patch until it leaves the window; None: nothing

    def vectors(self, block: KVBlock, look: Look) -> Tensor:
        """What the index holds of a block, [layers, m, width]."""

    def search(self, search: Search, k: int, spans: Sequence[Span] | None, selection: str) -> Hits:
        """The `k` best blocks."""

    def catch_up(self, store: BlockStore) -> tuple[int, int]:
        """Make the index hold what the store does; returns (added, removed)."""


class KeyFinder:
    """Finds blocks by one of `retrieval.methods`, with the model's own queries and keys."""

    embed: Embed | None = None

    def __init__(self, folder: Path, model: VisionLanguageModel, name: str, digest: str) -> None:
        spec, represented = model.text_spec, method(name)
        width = represented.width(spec.kv_heads, spec.head_dim)
        # An index for each method: another one can be tried on a store that is there already.
        place, label = folder / f"index-{name}", f"{represented} {digest}"
        self.index = Index(place, layers=spec.layers, width=width, label=label)
        self._retriever = KeyRetriever(self.index, represented, kv_heads=spec.kv_heads)

    def vectors(self, block: KVBlock, look: Look) -> Tensor:
        """From its keys."""
        return self._retriever.method.represent(block.keys)

    def search(self, search: Search, k: int, spans: Sequence[Span] | None, selection: str) -> Hits:
        """By the question's queries."""
        return self._retriever.search(search.query, k, stream=STREAM, spans=spans, selection=selection)

    def catch_up(self, store: BlockStore) -> tuple[int, int]:
        """From the stored keys."""
        return self._retriever.catch_up(STREAM, (e.id for e in store.blocks()), store.get)


class ModelEmbedder:
    """The watching model's own embedding: what its language model is given, averaged.

    A picture is the mean of its projected vision tokens, a text the mean of its tokens' input embeddings: both are
    points of the one space that the projector was trained to reach. Costs nothing while watching, for the tokens are
    there anyway, and needs no second model. Training-free, and weaker than one trained to compare (CLIP,
    arXiv 2103.00020; SigLIP, arXiv 2303.15343): `benchmarks.recall` measures by how much it finds less than keys do.
    """

    name = "the model's own"

    def __init__(self, model: VisionLanguageModel) -> None:
        self._model = model

    @property
    def dim(self) -> int:
        """The language model's width."""
        return self._model.text_spec.hidden

    @torch.inference_mode()
    def embed_frames(self, frames: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] to float32 [n, dim]."""
        shown = frames.repeat_interleave(self._model.pixels.temporal, 0)
        patches = self._model.encode(shown, [(0.0, 0.0)] * len(frames))
        return torch.stack([patch.embeds.float().mean(0) for patch in patches])

    @torch.inference_mode()
    def embed_text(self, text: str) -> Tensor:
        """Float32 [dim]."""
        ids = torch.tensor(self._model.tokenize(text), dtype=torch.int64)
        return self._model.embed(ids).float().mean(0)


class EmbeddingFinder:
    """Finds blocks by how much their pictures are like the question's text. ReKV's external variant (2503.00540)."""

    def __init__(self, folder: Path, model: VisionLanguageModel, embedder: Embedder | None, digest: str) -> None:
        """Without an `embedder`, the model's own is used."""
        used = embedder or ModelEmbedder(model)
        label = f"{getattr(used, 'name', type(used).__qualname__)} {digest}"
        self.index = Index(folder / f"index-{EMBEDDING}", layers=1, width=used.dim, label=label)
        self._retriever = ExternalRetriever(self.index, used)
        self.embed: Embed | None = _mean_token if embedder is None else _by(embedder)

    def vectors(self, block: KVBlock, look: Look) -> Tensor:
        """From what was kept of its frame."""
        return self._retriever.vectors(None if look.embedding is None else look.embedding.unsqueeze(0))

    def search(self, search: Search, k: int, spans: Sequence[Span] | None, selection: str) -> Hits:
        """By the question's text."""
        return self._retriever.search(search.question, k, stream=STREAM, spans=spans, selection=selection)

    def catch_up(self, store: BlockStore) -> tuple[int, int]:
        """From the stored pictures: a store without pictures cannot be searched like this."""

        def read(block_id: int) -> tuple[float, float, Tensor | None]:
            entry = store.entries([block_id])[0]
            pixels = picture_pixels(store.picture(entry))
            return entry.start, entry.stop, None if pixels is None else pixels.unsqueeze(0)

        return self._retriever.catch_up(STREAM, (e.id for e in store.blocks()), read)


def make_finder(folder: Path, model: VisionLanguageModel, name: str, embedder: Embedder | None, digest: str) -> Finder:
    """The finder of a stream for `retrieve_method=name`; its index is opened or made in `folder`."""
    if name == EMBEDDING:
        return EmbeddingFinder(folder, model, embedder, digest)
    return KeyFinder(folder, model, name, digest)


def _mean_token(frames: Sequence[Frame], tokens: VisionTokens) -> Tensor | None:
    return tokens.embeds.float().mean(0).cpu() if len(tokens) else None


def _by(embedder: Embedder) -> Embed:
    return lambda frames, tokens: embedder.embed_frames(frames[-1].data.unsqueeze(0))[0].detach().float().cpu()
