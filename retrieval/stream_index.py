"""StreamIndex: the vectors of one stream's blocks, in shards of an hour, and the search over them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from streamvlm.retrieval.coarse import CoarseLists
from streamvlm.retrieval.hits import Hits, best
from streamvlm.retrieval.rows import Vectors
from streamvlm.retrieval.shard import ENTRY, Shard, ShardView, Span
from streamvlm.retrieval.sketch import Likely, Sketches

log = logging.getLogger(__name__)

HOUR = 3600.0
_GATHER = 1024  # rows copied at a time where a search reads scattered rows
SELECTIONS = ("shared", "per_layer")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """When a search may stop being exact, and how far."""

    exact: int = 100_000  # vectors: up to so many in the hours asked about, every one is scored
    probe: float = 0.1  # share of the cells that a search beyond that reads
    sketch_bytes: int = 1 << 28  # memory for sketches of the hours searched last; 0: none
    cells: int | None = None  # k-means cells; None: 2·sqrt(vectors)

    def __post_init__(self) -> None:
        if self.exact < 0:
            raise ValueError(f"exact is {self.exact}, must be at least 0")
        if self.sketch_bytes < 0:
            raise ValueError(f"sketch_bytes is {self.sketch_bytes}, must be at least 0")
        if not 0 < self.probe <= 1:
            raise ValueError(f"probe is {self.probe}, must be above 0 and at most 1")
        if self.cells is not None and self.cells < 1:
            raise ValueError(f"cells is {self.cells}, must be at least 1")


class StreamIndex:
    """One stream's part of an `Index`, which holds the lock. Vectors have `layers · width` numbers."""

    def __init__(self, path: Path, layers: int, width: int, settings: IndexSettings) -> None:
        self.path, self.layers, self.width, self.settings = path, layers, width, settings
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        hours = sorted(int(p.stem[1:]) for p in path.glob("h*.records") if re.fullmatch(r"h\d+", p.stem))
        # All were synced when the newest began; checking one more allows for blocks that came late.
        self._shards = {h: self._open(h, verify=h in hours[-2:]) for h in hours}
        self._newest = hours[-1] if hours else -1
        self._hour_of = {block: h for h, shard in self._shards.items() for block in shard.blocks()}
        self.lists = self._load_lists()
        self._sketches = Sketches(settings.sketch_bytes)

    def _open(self, hour: int, *, verify: bool = True) -> Shard:
        return Shard(self.path / f"h{hour:06d}", hour, self.layers * self.width, verify=verify)

    def _load_lists(self) -> CoarseLists | None:
        path = self.path / "cells.npz"
        if not path.exists():
            return None
        try:
            lists = CoarseLists.load(path)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            log.warning("%s cannot be read and will be made again: %s", path, error)
            return None
        for hour in list(lists.cells):
            if hour not in self._shards or len(lists.cells[hour]) > self._shards[hour].file.count:
                del lists.cells[hour]
        return lists

    def __len__(self) -> int:
        return len(self._hour_of)

    def __contains__(self, block: int) -> bool:
        return block in self._hour_of

    def blocks(self) -> set[int]:
        """Ids of all blocks."""
        return set(self._hour_of)

    @property
    def vectors(self) -> int:
        """Vectors on disk, those of removed blocks too."""
        return sum(shard.file.count for shard in self._shards.values())

    def add(self, block: int, start: float, stop: float, vectors: Vectors) -> None:
        """Add a block's vectors [m, layers · width]. Raises OSError with nothing changed."""
        hour = int(start // HOUR)
        if hour not in self._shards:
            if hour > self._newest:
                self.sync()
            self._shards[hour] = self._open(hour)
            self._newest = max(self._newest, hour)
        self._shards[hour].add(block, start, stop, vectors)
        self._hour_of[block] = hour

    def remove(self, block: int) -> bool:
        """Forget a block, and the files of its hour with the last one of it. False if it was not here."""
        hour = self._hour_of.pop(block, None)
        if hour is None:
            return False
        shard = self._shards[hour]
        if len(shard) == 1:
            del self._shards[hour]
            shard.file.delete()
            self._sketches.forget(hour)
            if self.lists is not None:
                self.lists.cells.pop(hour, None)
        else:
            shard.remove(block)
        return True

    def views(self, spans: Sequence[Span] | None = None) -> list[ShardView]:
        """What a search over `spans` looks at, oldest hour first."""
        views = [self._shards[hour].view(spans) for hour in sorted(self._shards)]
        return [view for view in views if len(view.entries)]

    def search(
        self, query: Vectors, k: int, spans: Sequence[Span] | None, selection: str, *, exact: bool = False
    ) -> Hits:
        """The `k` best blocks for a query [layers, width]."""
        views = self.views(spans)
        lists = self.lists if not exact and self._many(views) else None
        if lists is not None:
            flat = query.reshape(1, -1) if selection == "shared" else _padded(query)
            count = max(1, round(self.settings.probe * len(lists.centroids)))
            while count < len(lists.centroids):
                hits = self._rank(views, query, k, selection, (lists, lists.probe(flat, count)))
                if len(hits) == min(k, sum(len(view.entries) for view in views)):
                    return hits
                count *= 2
        return self._rank_all(views, query, k, selection)

    def _many(self, views: Sequence[ShardView]) -> bool:
        return sum(int(view.entries["count"].sum()) for view in views) > self.settings.exact

    def _rank(
        self,
        views: Sequence[ShardView],
        query: Vectors,
        k: int,
        selection: str,
        probed: tuple[CoarseLists, NDArray[np.bool_]],
    ) -> Hits:
        lists, cells = probed
        found = [_scored(view, view.row_numbers(cells[lists.of(view)]), query, selection) for view in views]
        return _best_of(found, k)

    def _rank_all(self, views: Sequence[ShardView], query: Vectors, k: int, selection: str) -> Hits:
        """Exact: sketches leave rows unread only where they are known not to matter."""
        flat = query.reshape(1, -1) / np.float32(len(query)) if selection == "shared" else _padded(query)
        guesses: dict[int, Likely] = {}
        found: dict[int, Scored] = {}
        for view in views:
            sketch = self._sketches.of(view, k)
            if sketch is None:
                found[view.hour] = self._scan(view, query, selection)
            else:
                guesses[view.hour] = sketch.likely(flat, k)
        simple = all(view.simple for view in views)  # else several rows may be of one block
        least = _least([*found.values()], [*guesses.values()], k if simple else None, len(flat))
        for view in views:
            if view.hour in guesses:
                found[view.hour] = _scored(view, guesses[view.hour].above(least), query, selection)
        hits = _best_of(list(found.values()), k)
        weakest = hits.scores[:, -1].numpy() if len(hits) == k else np.float32(-np.inf)
        doubtful = [v for v in views if v.hour in guesses and (guesses[v.hour].bound >= weakest).any()]
        for view in doubtful:
            found[view.hour] = self._scan(view, query, selection)
        return _best_of(list(found.values()), k) if doubtful else hits

    def _scan(self, view: ShardView, query: Vectors, selection: str) -> Scored:
        scored = _scored(view, view.row_numbers(), query, selection)
        view.relax()
        return scored

    def training_due(self) -> bool:
        """Whether there are more vectors than are searched exactly, and no cells made for about so many."""
        if self.vectors <= self.settings.exact:
            return False
        return self.lists is None or self.vectors >= 2 * self.lists.trained_on

    def sync(self) -> None:
        """Make everything added so far survive a power cut."""
        for shard in self._shards.values():
            shard.file.sync()

    def close(self) -> None:
        """Sync, save and close."""
        self.sync()
        if self.lists is not None:
            self.lists.save(self.path / "cells.npz")
        for shard in self._shards.values():
            shard.file.close()


def _padded(query: Vectors) -> Vectors:
    """[layers, width] to [layers, layers · width]: row l holds layer l's query in its place, zeros elsewhere."""
    layers = len(query)
    padded = np.zeros((layers, *query.shape), np.float32)
    padded[np.arange(layers), np.arange(layers)] = query
    return padded.reshape(layers, -1)


Scored = tuple[Vectors, NDArray[np.void]]  # scores [1 or layers, blocks] of ENTRY [blocks]


def _scored(view: ShardView, numbers: NDArray[np.int64], query: Vectors, selection: str) -> Scored:
    """The blocks that rows `numbers` (ascending) of a view belong to, each by its best of them."""
    if not len(numbers):
        return np.empty((1 if selection == "shared" else len(query), 0), np.float32), np.empty(0, ENTRY)
    scores = _score(view, numbers, query, selection)
    if view.simple:
        return scores, view.entries if len(numbers) == len(view.entries) else view.entries[numbers]
    owners = np.searchsorted(view.entries["first"], numbers, side="right") - 1
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    return np.maximum.reduceat(scores, firsts, axis=1), view.entries[owners[firsts]]


def _least(found: Sequence[Scored], guesses: Sequence[Likely], k: int | None, queries: int) -> Vectors:
    """[queries, 1]: at least `k` blocks are known to score so high; nothing is known with None."""
    known = [scores for scores, _ in found] + [guess.scores - guess.slack for guess in guesses]
    if k is None or sum(scores.shape[1] for scores in known) < k:
        return np.full((queries, 1), -np.inf, np.float32)
    least: Vectors = np.partition(np.concatenate(known, axis=1), -k, axis=1)[:, -k, None]
    return least


def _best_of(found: Sequence[Scored], k: int) -> Hits:
    """The `k` best of all; first of each part, so that little is copied."""
    parts = []
    for scores, entries in found:
        keep = _leading(scores, k)
        parts.append((scores, entries) if keep is None else (scores[:, keep], entries[keep]))
    if not parts:
        return best(np.empty((1, 0), np.float32), np.empty(0, ENTRY), k)
    return best(np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts]), k)


def _leading(scores: Vectors, k: int) -> NDArray[np.int64] | None:
    """Which may be among the `k` best of any row, those that tie with the last too; None: all."""
    if scores.shape[1] <= 2 * k:
        return None
    least = np.partition(scores, -k, axis=1)[:, -k, None]
    return np.flatnonzero((scores >= least).any(axis=0))


def _score(view: ShardView, numbers: NDArray[np.int64], query: Vectors, selection: str) -> Vectors:
    """Scores [1 or layers, len(numbers)] of those rows."""
    if numbers[-1] - numbers[0] + 1 == len(numbers):  # in one piece: no copy
        return _product(view.rows[numbers[0] : numbers[-1] + 1], query, selection)
    parts = [numbers[i : i + _GATHER] for i in range(0, len(numbers), _GATHER)]
    return np.concatenate([_product(view.gather(part), query, selection) for part in parts], axis=1)


def _product(rows: Vectors, query: Vectors, selection: str) -> Vectors:
    """The inner products of faiss.IndexFlatIP without its copy of the rows in memory."""
    layers = len(query)
    if selection == "shared":
        return (rows @ (query.ravel() / np.float32(layers)))[None]
    by_layer = rows.reshape(len(rows), layers, -1).transpose(1, 0, 2)
    return np.asarray((by_layer @ query[:, :, None])[..., 0])
