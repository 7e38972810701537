"""Filmstrip: small pictures of what a run was shown, two a second, in one file, for looking back."""

from __future__ import annotations

import os
import struct
import threading
from bisect import bisect_right
from pathlib import Path

HEAD = struct.Struct("<dI")  # presentation time in seconds, bytes of JPEG that follow
EVERY = 0.45  # seconds between two pictures at least: all of them at 2 a second, which no clock keeps exactly


class Filmstrip:
    """An append-only file of pictures with an index in memory, which is read back when the file is there already."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.left_out = 0  # pictures that had no room
        self._most = most_bytes
        self._times: list[float] = []
        self._places: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._end = self._read_index(os.fstat(self._file).st_size)

    def _read_index(self, size: int) -> int:
        place = 0
        while place + HEAD.size <= size:
            time, length = HEAD.unpack(os.pread(self._file, HEAD.size, place))
            if place + HEAD.size + length > size:
                break
            self._times.append(time)
            self._places.append((place + HEAD.size, length))
            place += HEAD.size + length
        return place

    @property
    def size(self) -> int:
        """Bytes."""
        return self._end

    def wants(self, time: float) -> bool:
        """Whether a picture of this moment would be kept."""
        return not self._times or time >= self._times[-1] + EVERY

    def add(self, time: float, picture: bytes) -> None:
        """Keep a picture; times only go up."""
        with self._lock:
            if self._end + len(picture) > self._most:
                self.left_out += 1
                return
            os.pwrite(self._file, HEAD.pack(time, len(picture)) + picture, self._end)
            self._times.append(time)
            self._places.append((self._end + HEAD.size, len(picture)))
            self._end += HEAD.size + len(picture)

    def at(self, time: float) -> tuple[float, bytes] | None:
        """The newest picture that is not later than `time`, else the first; None when there is none."""
        with self._lock:
            if not self._times:
                return None
            index = max(0, bisect_right(self._times, time) - 1)
            place, length = self._places[index]
            return self._times[index], os.pread(self._file, length, place)

    def close(self) -> None:
        """Let go of the file; harmless when called again."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._times, self._places = [], []
