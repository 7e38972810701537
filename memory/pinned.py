"""PinnedRing: page-locked memory pinned once, from which copies off the device need not be waited for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.memory.codecs import ALIGN


@dataclass(frozen=True, slots=True, eq=False)
class PinnedCopy:
    """Bytes on their way from the device."""

    data: Tensor  # uint8, shaped as the source
    arrived: torch.cuda.Event  # `data` may be read after it


class PinnedRing:
    """A ring of bytes that are returned in the order they were taken. The caller serialises the calls."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self._memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._taken: deque[tuple[int, int]] = deque()  # start, end of each, oldest first

    def copy(self, source: Tensor) -> PinnedCopy | None:
        """Start copying uint8 `source` on a stream of its own, or None if there is no room now."""
        start = self._room(source.nbytes)
        if start is None:
            return None
        self._taken.append((start, start + source.nbytes))
        data = self._memory[start : start + source.nbytes].view(source.shape)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(self._stream):
            data.copy_(source, non_blocking=True)
            arrived.record(self._stream)
        source.record_stream(self._stream)  # its memory is not to be reused before it has been copied
        return PinnedCopy(data, arrived)

    def release(self) -> None:
        """Give back the oldest bytes taken."""
        self._taken.popleft()

    def _room(self, nbytes: int) -> int | None:
        """Where `nbytes` fit: after the newest, or from the start again."""
        size = len(self._memory)
        if not self._taken:
            return 0 if nbytes <= size else None
        oldest, newest = self._taken[0][0], -(-self._taken[-1][1] // ALIGN) * ALIGN
        if newest > oldest:
            if newest + nbytes <= size:
                return newest
            return 0 if nbytes <= oldest else None
        return newest if newest + nbytes <= oldest else None
