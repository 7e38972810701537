"""CoarseLists: which vectors lie near each other, so that a search may leave most of them unread (an inverted file)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from streamvlm.retrieval.rows import Vectors
from streamvlm.retrieval.shard import ShardView

_CHUNK = 8192  # rows assigned at a time
_SAMPLE_BYTES = 1 << 29  # of vectors that k-means copies into memory


@dataclass(slots=True, eq=False)
class CoarseLists:
    """k-means cells over the vectors of one stream. Vectors are not copied: a list is a row's cell number.

    Cells are found and rows assigned by L2 distance, but probed by the inner product of the query with their centroids,
    which is the mean score of a cell's rows. FAISS's own IVF for inner products assigns by inner product too, which
    puts everything in one cell when all keys share a large bias, as Qwen2's do.
    """

    centroids: Vectors  # [cells, width]
    trained_on: int  # rows there were
    cells: dict[int, NDArray[np.int32]] = field(default_factory=dict)  # per hour, the cell of each of its rows

    @classmethod
    def train(cls, views: Sequence[ShardView], *, cells: int | None = None, seed: int = 0) -> CoarseLists:
        """k-means over at most 64 rows per cell and 512 MB, drawn evenly; by default 2·sqrt(rows) cells."""
        total = sum(len(v.rows) for v in views)
        cells = min(total, cells or max(1, round(2 * math.sqrt(total))))
        width = views[0].rows.shape[1]
        sample = max(cells, min(64 * cells, _SAMPLE_BYTES // (4 * width)))
        chosen = np.sort(np.random.default_rng(seed).permutation(total)[:sample])
        parts, offset = [], 0
        for view in views:
            mine = chosen[(chosen >= offset) & (chosen < offset + len(view.rows))] - offset
            parts.append(np.asarray(view.rows[mine]))
            offset += len(view.rows)
        kmeans = faiss.Kmeans(width, cells, niter=10, seed=seed, min_points_per_centroid=1, max_points_per_centroid=64)
        kmeans.train(np.concatenate(parts))
        lists = cls(np.asarray(kmeans.centroids, np.float32), total)
        for view in views:
            lists.of(view)
        return lists

    def of(self, view: ShardView) -> NDArray[np.int32]:
        """The cell of each row of `view`; rows not seen before are assigned now."""
        known = self.cells.get(view.hour, np.empty(0, np.int32))
        if len(known) < len(view.rows):
            nearest = faiss.IndexFlatL2(self.centroids.shape[1])
            nearest.add(self.centroids)
            new = [known]
            for first in range(len(known), len(view.rows), _CHUNK):
                new.append(nearest.search(np.asarray(view.rows[first : first + _CHUNK]), 1)[1][:, 0].astype(np.int32))
            self.cells[view.hour] = known = np.concatenate(new)
        return known[: len(view.rows)]

    def probe(self, queries: Vectors, count: int) -> NDArray[np.bool_]:
        """bool [cells]: the `count` best cells of any of the queries [q, width]."""
        best = faiss.IndexFlatIP(self.centroids.shape[1])
        best.add(self.centroids)
        chosen = np.zeros(len(self.centroids), bool)
        chosen[best.search(np.ascontiguousarray(queries), min(count, len(chosen)))[1]] = True
        return chosen

    def save(self, path: Path) -> None:
        """Write to `path` in one piece: it is either the old file or the new one."""
        hours = np.array(sorted(self.cells), np.int64)
        counts = np.array([len(self.cells[hour]) for hour in hours.tolist()], np.int64)
        cells = np.concatenate([np.empty(0, np.int32), *(self.cells[hour] for hour in hours.tolist())])
        temporary = path.with_suffix(".new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(
                file, centroids=self.centroids, trained_on=self.trained_on, hours=hours, counts=counts, cells=cells
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> CoarseLists:
        """What `save` wrote.

        Raises:
            OSError, ValueError, KeyError, EOFError, BadZipFile: it cannot be read.
        """
        with np.load(path, allow_pickle=False) as data:
            parts = np.split(data["cells"], np.cumsum(data["counts"]))[:-1]
            cells = dict(zip(data["hours"].tolist(), parts, strict=True))
            return cls(data["centroids"], int(data["trained_on"]), cells)
