"""VectorFile: the vectors of one shard on disk, appended to and mapped, never read into memory as a whole."""

from __future__ import annotations

import mmap
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

# One per addition. A removal is a record with no vectors.
RECORD = np.dtype([("block", "<i8"), ("start", "<f8"), ("stop", "<f8"), ("count", "<u4"), ("crc", "<u4")])

Vectors = NDArray[np.float32]
Records = NDArray[np.void]


def _crc(record: Records, vectors: bytes) -> int:
    return crc32(vectors, crc32(record.tobytes()[:-4]))


class VectorFile:
    """Rows float32 [n, width] in `<stem>.rows` and who they belong to in `<stem>.records`, both append-only.

    An addition writes its rows and then its record, whose crc32 covers both: it counts once the record is complete.
    Opening cuts off a torn or damaged tail; what is lost can be made again from the stored blocks, so nothing is synced
    until `sync`. One process may write. Files are 0600: vectors reveal the video.
    """

    def __init__(self, stem: Path, width: int, *, verify: bool = True) -> None:
        """Open or create. With `verify`, every crc is checked, otherwise only lengths and the last crc."""
        self.width = width
        self._paths = (stem.with_suffix(".rows"), stem.with_suffix(".records"))
        self._rows, self._index = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in self._paths)
        self._map: mmap.mmap | None = None
        self._view: Vectors = np.empty((0, width), np.float32)
        self.count = 0  # rows
        self._records = 0
        self._dirty = False
        self.restored = self._restore(verify)

    def _restore(self, verify: bool) -> Records:
        """The records that count; the files are cut to them."""
        size = os.fstat(self._index).st_size
        raw = os.pread(self._index, size, 0)
        records = np.frombuffer(raw, RECORD, count=size // RECORD.itemsize)
        ends = np.cumsum(records["count"].astype(np.int64)) if len(records) else np.empty(0, np.int64)
        good = int((ends * self.width * 4 <= os.fstat(self._rows).st_size).sum())
        for i in range(good) if verify else range(max(0, good - 1), good):
            first = int(ends[i]) - int(records["count"][i])
            if _crc(records[i : i + 1], self._read(first, int(records["count"][i]))) != int(records["crc"][i]):
                good = i
                break
        self.count = int(ends[good - 1]) if good else 0
        self._records = good
        os.ftruncate(self._index, good * RECORD.itemsize)
        os.ftruncate(self._rows, self.count * self.width * 4)
        return records[:good]

    def _read(self, first: int, count: int) -> bytes:
        return os.pread(self._rows, count * self.width * 4, first * self.width * 4)

    def append(self, block: int, start: float, stop: float, vectors: Vectors) -> None:
        """Add one block's vectors [m, width]; m = 0 records its removal.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        record = np.array([(block, start, stop, len(vectors), 0)], RECORD)
        data = np.ascontiguousarray(vectors, np.float32).tobytes()
        record["crc"] = _crc(record, data)
        _write(self._rows, data, self.count * self.width * 4)
        _write(self._index, record.tobytes(), self._records * RECORD.itemsize)
        self._dirty = True
        self._records += 1
        self.count += len(vectors)

    def rows(self) -> Vectors:
        """All rows [count, width], mapped read-only: pages come and go with the system's cache."""
        if len(self._view) < self.count:
            self._map = mmap.mmap(self._rows, self.count * self.width * 4, access=mmap.ACCESS_READ)
            self._view = np.frombuffer(self._map, np.float32).reshape(self.count, self.width)
        return self._view

    def gather(self, numbers: NDArray[np.int64]) -> Vectors:
        """Copies of rows, whose numbers ascend."""
        out = np.empty((len(numbers), self.width), np.float32)
        edges = np.flatnonzero(np.diff(numbers, prepend=-2, append=-2) != 1)
        for a, b in pairwise(edges.tolist()):
            os.preadv(self._rows, [out[a:b].data.cast("B")], int(numbers[a]) * self.width * 4)
        return out

    def relax(self) -> None:
        """Let the mapped pages go from the process; they stay in the system's cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def sync(self) -> None:
        """Make what was added so far survive a power cut."""
        if self._dirty:
            os.fsync(self._rows)
            os.fsync(self._index)
            self._dirty = False

    def close(self) -> None:
        """Close the files. Rows handed out stay readable."""
        os.close(self._rows)
        os.close(self._index)

    def delete(self) -> None:
        """Close and remove the files."""
        self.close()
        for path in self._paths:
            path.unlink()


def _write(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
