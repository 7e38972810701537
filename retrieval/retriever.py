"""Retrievers: what the engine asks for blocks. This one compares the model's own queries and keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from streamvlm.errors import StreamVLMError
from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.representatives import Method
from streamvlm.retrieval.shard import Span

log = logging.getLogger(__name__)
Query = TypeVar("Query", contravariant=True)


class Retriever(Protocol[Query]):
    """Finds blocks: for a query tensor (`KeyRetriever`) or for a text (`ExternalRetriever`)."""

    def search(
        self,
        query: Query,
        k: int,
        *,
        stream: str,
        spans: Sequence[Span] | None = None,
        selection: str = "shared",
    ) -> Hits:
        """The `k` best blocks of `stream`, of those that overlap `spans`. See `Index.search`."""


class StoredBlock(Protocol):
    """What is needed of a block of the store."""

    @property
    def keys(self) -> Tensor:
        """Un-rotated [layers, kv_heads, n, head_dim]."""

    @property
    def start(self) -> float:
        """Seconds."""

    @property
    def stop(self) -> float:
        """Seconds."""


class KeyRetriever:
    """Retrieval by the model's own keys, represented by `method`, in `index`.

    With `layers` (ascending), only those layers of the model are represented and asked, and `index.layers` is their
    number; "per_layer" then ranks for those only.
    """

    def __init__(self, index: Index, method: Method, *, kv_heads: int, layers: Sequence[int] | None = None) -> None:
        if layers is not None and len(layers) != index.layers:
            raise ValueError(f"{len(layers)} layers are to be indexed, the index holds {index.layers}")
        self.index, self.method, self.kv_heads = index, method, kv_heads
        self.layers = None if layers is None else list(layers)

    def add(self, block_id: int, stream: str, block: StoredBlock, received: Tensor | None = None) -> None:
        """Index a block. Raises as `Index.add`."""
        keys = block.keys if self.layers is None else block.keys[self.layers]
        if received is not None and self.layers is not None:
            received = received[self.layers]
        self.index.add(block_id, stream, block.start, block.stop, self.method.represent(keys, received))

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        stream: str,
        spans: Sequence[Span] | None = None,
        selection: str = "shared",
    ) -> Hits:
        """The best blocks for a mean un-rotated query [layers, heads, head_dim]. Raises as `Index.search`."""
        query = query if self.layers is None else query[self.layers]
        projected = self.method.project(query, self.kv_heads)
        return self.index.search(projected, k, stream=stream, spans=spans, selection=selection)

    def catch_up(self, stream: str, stored: Iterable[int], read: Callable[[int], StoredBlock]) -> tuple[int, int]:
        """Make the index hold exactly the blocks `stored`; returns (added, removed).

        This repairs it after a crash and builds it anew from nothing. A block that cannot be read is left out.
        """
        return catch_up(self.index, stream, stored, lambda block_id: self.add(block_id, stream, read(block_id)))


def catch_up(index: Index, stream: str, stored: Iterable[int], add: Callable[[int], None]) -> tuple[int, int]:
    """Make `index` hold exactly the blocks `stored`, `add`ing those it lacks; returns (added, removed)."""
    wanted, held = set(stored), index.blocks(stream)
    removed = index.remove(stream, sorted(held - wanted))
    added = 0
    for block_id in sorted(wanted - held):
        try:
            add(block_id)
            added += 1
        except StreamVLMError as error:
            log.warning("block %d of %s is not in the index: %s", block_id, stream, error)
    index.sync()
    return added, removed
