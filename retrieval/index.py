"""Index: finds, among all blocks ever stored, those that a question needs.

On disk, next to the block store: `index.json`, and per stream a folder with two files per hour and the cells of its
coarse lists. Everything can be made again from the stored blocks.

Memory: vectors are mapped, so they cost page cache and no heap; about 300 bytes per block stay in memory. A vector has
4 · layers · width bytes: 2 KB for the embedded model, 57 KB for 28 layers of 4 heads of 128. A search reads all of the
hours it is asked about up to `IndexSettings.exact` vectors, then the share `probe` of them. Indexing a few layers only
(`KeyRetriever.layers`) divides both.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

import numpy as np
from torch import Tensor

from streamvlm.retrieval.coarse import CoarseLists
from streamvlm.retrieval.hits import Hits, best
from streamvlm.retrieval.shard import ENTRY, Span
from streamvlm.retrieval.stream_index import SELECTIONS, IndexSettings, StreamIndex

VERSION = 1


class Index:
    """Inner-product index of blocks by stream and hour. Thread-safe; one process may have it open.

    Searches are exact until the hours asked about hold more than `settings.exact` vectors and `train` has been called.
    """

    def __init__(
        self, path: Path, *, layers: int, width: int, label: str = "", settings: IndexSettings | None = None
    ) -> None:
        """Open the index in the folder `path`, or create it. `label` names what the vectors are (method, model).

        Raises:
            ValueError: what is there was made with another shape or label; delete it and build it again.
            OSError: it cannot be read or written.
        """
        self.path, self.layers, self.width = path, layers, width
        self.settings = settings or IndexSettings()
        self._lock = threading.RLock()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_header(path / "index.json", {"version": VERSION, "layers": layers, "width": width, "label": label})
        folders = [p for p in path.iterdir() if p.is_dir() and p.name.startswith("stream-")]
        self._streams = {unquote(p.name.removeprefix("stream-")): self._open(p) for p in folders}

    def _open(self, path: Path) -> StreamIndex:
        return StreamIndex(path, self.layers, self.width, self.settings)

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._streams.values()))

    def blocks(self, stream: str) -> set[int]:
        """Ids of the blocks of `stream`."""
        with self._lock:
            return self._streams[stream].blocks() if stream in self._streams else set()

    def add(self, block_id: int, stream: str, start: float, stop: float, vectors: Tensor) -> None:
        """Add a block of `stream` [start, stop) by its vectors [layers, m, width], m >= 1.

        Raises:
            ValueError: the shape or the times are wrong, or the block is already there.
            OSError: it could not be written (the disk is full); nothing has changed.
        """
        shape = tuple(vectors.shape)
        if len(shape) != 3 or shape[0] != self.layers or shape[2] != self.width or shape[1] < 1:
            raise ValueError(f"vectors are {shape}, must be [{self.layers}, 1 or more, {self.width}]")
        if not 0 <= start <= stop < float("inf"):
            raise ValueError(f"block {block_id} is from {start} to {stop} s, must be ordered and not negative")
        rows = vectors.detach().float().cpu().transpose(0, 1).flatten(1).numpy()
        if not np.isfinite(rows).all():
            raise ValueError(f"the vectors of block {block_id} are not all finite")
        with self._lock:
            if stream not in self._streams:
                self._streams[stream] = self._open(self.path / f"stream-{quote(stream, safe='')}")
            if block_id in self._streams[stream]:
                raise ValueError(f"block {block_id} of stream {stream!r} is already in the index")
            self._streams[stream].add(block_id, start, stop, rows)

    def remove(self, stream: str, block_ids: Iterable[int]) -> int:
        """Forget blocks, for instance those a quota dropped; returns how many were there.

        Disk space returns with the last block of an hour. Quotas drop the oldest first, so that is soon.
        """
        with self._lock:
            return sum(self._streams[stream].remove(block) for block in block_ids) if stream in self._streams else 0

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        stream: str,
        spans: Sequence[Span] | None = None,
        selection: str = "shared",
        exact: bool = False,
    ) -> Hits:
        """The `k` blocks of `stream` with the highest scores for a query [layers, width].

        Only blocks that overlap one of `spans` (seconds, [start, stop)) count; None: all. "shared" ranks by the mean
        score over layers, "per_layer" ranks for each layer. `exact` scores everything however many there are.

        Raises:
            ValueError: an unknown selection, a `k` below 1 or a query of the wrong shape.
        """
        if selection not in SELECTIONS:
            raise ValueError(f"selection is {selection!r}, must be one of {', '.join(SELECTIONS)}")
        if k < 1:
            raise ValueError(f"k is {k}, must be at least 1")
        if tuple(query.shape) != (self.layers, self.width):
            raise ValueError(f"the query is {tuple(query.shape)}, must be [{self.layers}, {self.width}]")
        with self._lock:
            if stream not in self._streams:
                return _nothing(1 if selection == "shared" else self.layers)
            found = self._streams[stream]
            return found.search(query.detach().float().cpu().numpy(), k, spans, selection, exact=exact)

    def training_due(self, stream: str) -> bool:
        """Whether `train` would make searches of `stream` cheaper."""
        with self._lock:
            return stream in self._streams and self._streams[stream].training_due()

    def train(self, stream: str) -> None:
        """Make the cells that let searches of `stream` skip most vectors: seconds of work, at a quiet moment.

        Searches and additions go on meanwhile.
        """
        with self._lock:
            views = self._streams[stream].views() if stream in self._streams else []
        if not views:
            return
        lists = CoarseLists.train(views, cells=self.settings.cells)
        with self._lock:
            self._streams[stream].lists = lists
            lists.save(self._streams[stream].path / "cells.npz")

    def recall(self, queries: Sequence[Tensor], k: int, *, stream: str, selection: str = "shared") -> float:
        """Share of the exact `k` best blocks that searches find, over `queries` and layers: 1 while they are exact."""
        found = wanted = 0
        for query in queries:
            truth = self.search(query, k, stream=stream, selection=selection, exact=True).blocks.tolist()
            got = self.search(query, k, stream=stream, selection=selection).blocks.tolist()
            found += sum(len(set(a) & set(b)) for a, b in zip(truth, got, strict=True))
            wanted += sum(map(len, truth))
        return found / wanted if wanted else 1.0

    def sync(self) -> None:
        """Make everything added so far survive a power cut. It happens once per hour of stream by itself."""
        with self._lock:
            for stream in self._streams.values():
                stream.sync()

    def close(self) -> None:
        """Sync and close."""
        with self._lock:
            for stream in self._streams.values():
                stream.close()
            self._streams = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nothing(rows: int) -> Hits:
    return best(np.empty((rows, 0), np.float32), np.empty(0, ENTRY), 1)


def _check_header(path: Path, header: dict[str, object]) -> None:
    """Compare with the header at `path`, or write it there in one piece."""
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != header:
            raise ValueError(f"the index in {path.parent} was made with {found}, not {header}; delete it to build anew")
        return
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(header, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
