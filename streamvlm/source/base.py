"""What every source has in common: iteration, counting, and closing from any thread."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import Self

from streamvlm.closing import Closing
from streamvlm.types import Frame

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceStats:
    """What a source has counted so far."""

    frames: int = 0  # handed out
    packets_broken: int = 0  # packets or pictures that could not be read; each costs at most a frame
    reconnects: int = 0  # times a live source was lost and found again
    gap_seconds: float = 0.0  # stream time lost to those
    truncated: bool = False  # the file ended before the length it declares


class Source(Closing, ABC):
    """An open video: a context manager and an iterator of `Frame`, decoded only as far as it is asked for.

    One thread iterates; any thread may `close()`. A reader that is blocked then stops within the read timeout.
    """

    def __init__(self, uri: str, *, live: bool = False, duration: float | None = None) -> None:
        self.uri = uri  # as given, without a password
        self.live = live  # frames arrive in their own time and cannot be had again
        self.duration = duration  # seconds, where known
        self._stats = SourceStats()
        self._closed = Event()
        self._reading = Lock()
        self._frames = self._read()

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield the frames; runs in the reader's thread, and should look at `_closed` between them."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of files and sockets. Never runs while `_read` does, may run more than once."""

    @property
    def stats(self) -> SourceStats:
        """A snapshot of the counts."""
        return self._stats

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        try:
            with self._reading:
                frame = self._advance()
        finally:
            if self._closed.is_set():
                self._release_if_idle()
        self._stats = replace(self._stats, frames=self._stats.frames + 1)
        return frame

    def _advance(self) -> Frame:
        if self._closed.is_set():
            raise StopIteration
        try:
            frame = next(self._frames)
        except BaseException:  # the end, an error or Ctrl-C: either way nothing more can be read
            self._closed.set()
            raise
        if self._closed.is_set():
            raise StopIteration
        return frame

    def close(self) -> None:
        """Stop reading and let go of everything. Any thread, any number of times."""
        self._closed.set()
        self._release_if_idle()

    def _release_if_idle(self) -> None:
        # A demuxer must not be closed under a thread that is inside it: that thread releases it on its way out.
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _count_broken(self) -> None:
        self._stats = replace(self._stats, packets_broken=self._stats.packets_broken + 1)

    def _mark_truncated(self, at: float) -> None:
        log.warning("%s: the file is cut off after %.1f s of %s", self.uri, at, _length(self.duration))
        self._stats = replace(self._stats, truncated=True)


def _length(duration: float | None) -> str:
    return "an unknown length" if duration is None else f"{duration:.1f} s"
