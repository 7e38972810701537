"""Local MP4 and MKV files through decord, behind the checks that keep it from returning the wrong pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from av.error import FFmpegError

from streamvlm.errors import SourceError
from streamvlm.source.address import Address, Medium
from streamvlm.source.base import Source
from streamvlm.source.container import explain, open_container
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import to_tensor
from streamvlm.source.reader import VideoReader
from streamvlm.source.sampling import Sampler
from streamvlm.types import Frame

if TYPE_CHECKING:
    from av.packet import Packet

_BATCH = 8  # pictures decoded at a time
_SAFE_FORMATS = frozenset({"mov", "matroska"})


class DecordSource(Source):
    """A local file read with decord.

    decord seeks by a table that is right for MP4 and MKV only, ignores edit lists, and decodes on in the background
    without bound. So everything else is refused, its number of pictures is checked against the packets, and it is
    sent back to the start after each batch. Timestamps are the container's, never index / rate.
    """

    def __init__(self, address: Address, fps: float | None, options: SourceOptions) -> None:
        if address.medium is not Medium.FILE:
            raise SourceError(address.shown, "decord reads local files only; use the pyav backend")
        packets, duration = _inspect(address, options)
        self._fps = fps
        self._error, self._videos = _open_decord(address)
        if len(self._videos) != packets:
            raise SourceError(
                address.shown,
                f"decord finds {len(self._videos)} pictures where the file has {packets}; use the pyav backend",
            )
        super().__init__(address.shown, duration=duration)

    def _read(self) -> Iterator[Frame]:
        spans = self._videos.get_frame_timestamp(range(len(self._videos)))  # seconds [n, 2]
        sampler = Sampler(self._fps)
        times = [float(start - spans[0][0]) for start, _ in spans]
        taken = [index for index, pts in enumerate(times) if sampler.takes(pts)]
        for first in range(0, len(taken), _BATCH):
            numbers = taken[first : first + _BATCH]
            for index, rgb in zip(numbers, self._batch(numbers), strict=True):
                duration = float(spans[index][1] - spans[index][0]) if self._fps is None else 1 / self._fps
                yield Frame(to_tensor(rgb), times[index], duration)

    def _batch(self, numbers: list[int]) -> np.ndarray[Any, Any]:
        try:
            pictures: np.ndarray[Any, Any] = self._videos.get_batch(numbers).asnumpy()
            # Without this decord goes on decoding in the background: gigabytes within seconds.
            self._videos.seek(0)
        except (self._error, RuntimeError) as error:
            raise SourceError(self.uri, "decord cannot decode this file; use the pyav backend") from error
        return pictures

    def _release(self) -> None:
        self._videos = None


def _open_decord(address: Address) -> tuple[type[Exception], Any]:
    """decord's exception type and its reader of the file."""
    try:
        import decord
    except ImportError as error:
        raise SourceError(address.shown, "decord is not installed; use the pyav backend") from error
    try:
        return decord.DECORDError, decord.VideoReader(address.url, num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise SourceError(address.shown, "decord cannot open this file; use the pyav backend") from error


def _inspect(address: Address, options: SourceOptions) -> tuple[int, float | None]:
    """Packets of the video track, and seconds; SourceError for files decord is known to read wrongly."""
    container = open_container(address, options)
    with VideoReader(address.shown, container, options.max_broken, lambda: None) as reader:
        if _SAFE_FORMATS.isdisjoint(container.format.name.split(",")):
            raise SourceError(address.shown, "decord reads MP4 and MKV only; use the pyav backend")
        try:
            packets = sum(_counts(packet, address) for packet in reader.packets() if reader.shows(packet))
        except FFmpegError as error:
            raise SourceError(address.shown, explain(error, options.read_timeout)) from error
        if reader.cut_off or reader.missing() > 0:
            raise SourceError(address.shown, "decord does not notice that the file is cut off; use the pyav backend")
        return packets, reader.duration


def _counts(packet: Packet[Any], address: Address) -> bool:
    if packet.is_discard:
        raise SourceError(address.shown, "decord ignores the file's edit list; use the pyav backend")
    return bool(packet.size)
