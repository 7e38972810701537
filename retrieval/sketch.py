"""Sketch: the vectors of a shard in a quarter of their bytes, to leave most of them unread without missing one."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from streamvlm.retrieval.rows import Vectors
from streamvlm.retrieval.shard import ShardView

LEAST = 512  # rows for which a sketch pays


@dataclass(frozen=True, slots=True, eq=False)
class Likely:
    """The rows that a sketch takes for the best, per query."""

    numbers: NDArray[np.int64]  # [queries, k], best first
    scores: Vectors  # [queries, k]
    slack: Vectors  # [queries, 1]; how far a score may be from the truth

    @property
    def bound(self) -> Vectors:
        """[queries]; no other row scores higher."""
        bound: Vectors = self.scores[:, -1] + self.slack[:, 0]
        return bound

    def above(self, least: Vectors) -> NDArray[np.int64]:
        """Rows, ascending, that may score as high as `least` [queries, 1] for some query."""
        return np.unique(self.numbers[self.scores + self.slack >= least])


class Sketch:
    """8 bits per number (FAISS's scalar quantiser), and how far the worst row is from what they say.

    A row's true score differs from its sketched one by at most |query| · |error|. So the rows beyond the `k` best of a
    sketch are known to score below a bound, and a search that found better ones elsewhere need not read them.
    """

    def __init__(self, rows: Vectors) -> None:
        """Of rows float32 [n, width], n >= 1."""
        self._trained_on = len(rows)
        self._codes = faiss.IndexScalarQuantizer(
            rows.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self._codes.train(np.ascontiguousarray(rows))
        self._error = 0.0  # the largest L2 distance of a row from its sketch

    def __len__(self) -> int:
        return int(self._codes.ntotal)

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return len(self) * int(self._codes.d)

    def grow(self, rows: Vectors) -> bool:
        """Take in what of `rows` is new; whether there was anything."""
        fresh = np.ascontiguousarray(rows[len(self) :])
        if not len(fresh):
            return False
        self._codes.add(fresh)
        off = fresh - self._codes.sa_decode(self._codes.sa_encode(fresh))
        self._error = max(self._error, float(np.sqrt(np.einsum("nw,nw->n", off, off).max())))
        return True

    def outgrown(self, rows: Vectors) -> bool:
        """Whether there are so many new rows that they deserve a range of their own."""
        return len(rows) >= 2 * self._trained_on

    def likely(self, queries: Vectors, k: int) -> Likely:
        """The `k` best rows for each of `queries` [q, width]; there must be more than `k`."""
        scores, numbers = self._codes.search(np.ascontiguousarray(queries), k)
        slack = np.linalg.norm(queries, axis=1) * self._error
        slack += 1e-5 * np.abs(scores).max(initial=0.0)  # rounding of the sums themselves
        return Likely(numbers, scores, slack.astype(np.float32)[:, None])


class Sketches:
    """The sketches of one stream's hours, those searched last, within a budget. Made from the vectors when needed."""

    def __init__(self, nbytes: int) -> None:
        self._budget = nbytes
        self._of: dict[int, Sketch] = {}  # by hour, the one used last at the end

    def of(self, view: ShardView, k: int) -> Sketch | None:
        """The sketch of a view of all rows of its shard; None for a part of one, too few rows for `k`, or no room."""
        if not view.whole or len(view.rows) < max(LEAST, 2 * k) or view.rows.nbytes // 4 > self._budget:
            return None
        sketch = self._of.pop(view.hour, None)
        if sketch is None or sketch.outgrown(view.rows):
            sketch = Sketch(view.rows)
        self._of[view.hour] = sketch
        if sketch.grow(view.rows):
            view.relax()
            while sum(held.nbytes for held in self._of.values()) > self._budget:
                del self._of[next(iter(self._of))]
        return sketch

    def forget(self, hour: int) -> None:
        """The hour is gone."""
        self._of.pop(hour, None)
