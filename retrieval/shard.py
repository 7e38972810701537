"""Shard: the blocks of one hour of one stream, what they are represented by and which still exist."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.retrieval.rows import VectorFile, Vectors

log = logging.getLogger(__name__)

Span = tuple[float, float]
# One per block in memory: 40 bytes.
ENTRY = np.dtype(
    [("block", "<i8"), ("start", "<f8"), ("stop", "<f8"), ("first", "<i8"), ("count", "<i4"), ("live", "<i4")]
)


@dataclass(frozen=True, slots=True, eq=False)
class ShardView:
    """A shard as of one moment. Later additions and removals do not show in it."""

    hour: int
    file: VectorFile
    rows: Vectors  # float32 [n, width], mapped
    entries: NDArray[np.void]  # ENTRY [blocks], only blocks asked for; their rows do not overlap and are in order
    whole: bool  # every row is of one of the entries

    def gather(self, numbers: NDArray[np.int64]) -> Vectors:
        """Copies of some rows, ascending. They are read and not mapped: a page for each would stay in the process."""
        return self.file.gather(numbers)

    def relax(self) -> None:
        """All rows have been read: let their pages go."""
        self.file.relax()

    @property
    def simple(self) -> bool:
        """Whether entry i is row i."""
        return len(self.entries) == len(self.rows)

    def row_numbers(self, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """int64: the rows of all entries, in order; with `wanted`, bool [n], only those."""
        if self.simple:
            return np.arange(len(self.rows)) if wanted is None else np.flatnonzero(wanted)
        return np.flatnonzero(self.mask() if wanted is None else self.mask() & wanted)

    def mask(self) -> NDArray[np.bool_]:
        """bool [n]: which rows belong to the entries."""
        edges = np.zeros(len(self.rows) + 1, np.int64)
        np.add.at(edges, self.entries["first"], 1)
        np.add.at(edges, self.entries["first"] + self.entries["count"], -1)
        return np.cumsum(edges[:-1]) > 0


class Shard:
    """One hour's blocks. Their vectors stay on disk; 40 bytes a block stay in memory."""

    def __init__(self, stem: Path, hour: int, width: int, *, verify: bool = True) -> None:
        self.hour = hour
        self.file = VectorFile(stem, width, verify=verify)
        self._entries = np.empty(64, ENTRY)
        self._size = 0
        self._where: dict[int, int] = {}
        self._whole: ShardView | None = None  # of all blocks, as of now
        first = 0
        for record in self.file.restored:
            if record["count"]:
                self._note(
                    int(record["block"]), float(record["start"]), float(record["stop"]), first, int(record["count"])
                )
                first += int(record["count"])
            else:
                self._forget(int(record["block"]))

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, block: int) -> bool:
        return block in self._where

    def blocks(self) -> list[int]:
        """Ids of the blocks that still exist."""
        return list(self._where)

    def add(self, block: int, start: float, stop: float, vectors: Vectors) -> None:
        """Add a block that is not here yet. Raises OSError with nothing changed."""
        first = self.file.count
        self.file.append(block, start, stop, vectors)
        self._note(block, start, stop, first, len(vectors))

    def remove(self, block: int) -> None:
        """Forget a block. Its vectors stay on disk until the whole shard goes."""
        self._forget(block)
        try:
            self.file.append(block, 0.0, 0.0, np.empty((0, self.file.width), np.float32))
        except OSError as error:  # quotas drop blocks when the disk is full; `catch_up` will drop this one again
            log.warning("the removal of block %d was not written: %s", block, error)

    def view(self, spans: Sequence[Span] | None = None) -> ShardView:
        """The existing blocks that overlap any of `spans`, or all of them."""
        if spans is None and self._whole is not None:
            return self._whole
        entries = self._entries[: self._size]
        keep = entries["live"] == 1
        if spans is not None:
            start, stop = entries["start"], entries["stop"]
            near = np.zeros(len(entries), bool)
            for a, b in spans:
                near |= (start < b) & ((stop > a) | (start >= a))  # a block of no length is where it starts
            keep &= near
        rows, kept = self.file.rows(), entries[keep]
        view = ShardView(self.hour, self.file, rows, kept, int(kept["count"].sum()) == len(rows))
        if spans is None:
            self._whole = view
        return view

    def _note(self, block: int, start: float, stop: float, first: int, count: int) -> None:
        self._whole = None
        if self._size == len(self._entries):
            self._entries = np.resize(self._entries, 2 * self._size)
        self._entries[self._size] = (block, start, stop, first, count, 1)
        self._where[block] = self._size
        self._size += 1

    def _forget(self, block: int) -> None:
        self._whole = None
        where = self._where.pop(block, None)
        if where is not None:
            self._entries["live"][where] = 0
