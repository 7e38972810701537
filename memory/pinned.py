"""PinnedRing: page-locked memory pinned once, from which copies off the device need not be waited for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.memory.codecs import ALIGN
from streamvlm.memory.records import align


class RingSpace:
    """Which bytes of a ring are taken. They are given back in the order they were taken."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._taken: deque[tuple[int, int]] = deque()  # start and end of each, oldest first

    def take(self, nbytes: int) -> int | None:
        """Where `nbytes` in a row are now taken, a multiple of ALIGN; None if there is no room."""
        start = self._room(nbytes)
        if start is not None:
            self._taken.append((start, start + nbytes))
        return start

    def release(self) -> None:
        """Give back the oldest."""
        self._taken.popleft()

    def _room(self, nbytes: int) -> int | None:
        """After the newest, or else from the start again."""
        if not self._taken:
            return 0 if nbytes <= self._nbytes else None
        oldest, newest = self._taken[0][0], align(self._taken[-1][1], ALIGN)
        if newest <= oldest:  # it has wrapped already
            return newest if newest + nbytes <= oldest else None
        if newest + nbytes <= self._nbytes:
            return newest
        return 0 if nbytes <= oldest else None


@dataclass(frozen=True, slots=True, eq=False)
class PinnedCopy:
    """Bytes on their way from the device."""

    data: Tensor  # uint8, shaped as the source
    arrived: torch.cuda.Event  # `data` may be read after it


class PinnedRing:
    """Copies off a CUDA device, given back in the order they were made. The caller serialises the calls."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self._memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self._space = RingSpace(nbytes)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, source: Tensor) -> PinnedCopy | None:
        """Start copying uint8 `source` on a stream of its own, or None if there is no room now."""
        start = self._space.take(source.nbytes)
        if start is None:
            return None
        data = self._memory[start : start + source.nbytes].view(source.shape)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(self._stream):
            data.copy_(source, non_blocking=True)
            arrived.record(self._stream)
        source.record_stream(self._stream)  # its memory is not to be reused before it has been copied
        return PinnedCopy(data, arrived)

    def release(self) -> None:
        """Give back the oldest copy's memory."""
        self._space.release()
