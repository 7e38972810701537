"""The pictures of a video at given moments, and never a later one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import torch
from av.error import FFmpegError

from streamvlm import Frame, SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

FAR = 8.0  # seconds ahead past which seeking is faster than decoding on


def duration(path: Path) -> float:
    """Length of a video in seconds.

    Raises:
        SourceError: it cannot be opened, or does not say.
    """
    with _open(path) as container:
        track = container.streams.video[0]
        if track.duration is not None and track.time_base is not None:
            return float(track.duration * track.time_base)
        if container.duration is not None:
            return container.duration / 1e6
    raise SourceError(str(path), "the video does not say how long it is")


def pictures(path: Path, times: Sequence[float], origin: float = 0.0) -> Iterator[Frame]:
    """For each of the rising `times`, the picture on screen at that moment; one that is there already is left out.

    A frame's `pts` counts from `origin`. `times` are seconds from the first picture.

    Raises:
        SourceError: the video cannot be read.
    """
    with _open(path) as container:
        shown: float | None = None
        steps = [b - a for a, b in pairwise(times)]
        for wanted, picture in zip(times, _Player(path, container).at(times), strict=False):
            time, frame = picture
            assert time <= wanted + 1e-3 or shown is None, f"the picture of {time} s shown at {wanted} s"
            if time != shown:
                yield Frame(_rgb(frame), max(wanted - origin, 0.0), steps[0] if steps else 1.0)
            shown = time


class _Player:
    """Decodes a container forward, seeking over long stretches that nobody asked for."""

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path = path
        self._container = container
        self._track = container.streams.video[0]
        self._track.thread_type = "AUTO"
        self._begin: float | None = None  # timestamp of the first picture
        self._next: tuple[float, VideoFrame] | None = None
        self._decoded = self._decode()

    def at(self, times: Sequence[float]) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds, picture) on screen at each of the rising `times`."""
        newest = self._advance()
        if newest is None:
            raise SourceError(str(self._path), "no picture could be decoded")
        self._next = self._advance()
        for wanted in times:
            if self._next is not None and wanted > self._next[0] + FAR:
                newest = self._seek(wanted) or newest
            while self._next is not None and self._next[0] <= wanted + 1e-6:
                newest, self._next = self._next, self._advance()
            yield newest

    def _seek(self, wanted: float) -> tuple[float, VideoFrame] | None:
        """Jump to the key picture before `wanted`; back to decoding on from the start if the index leads past it."""
        base = float(self._track.time_base or 1)
        for target in (wanted, 0.0):
            self._container.seek(
                int((target + (self._begin or 0.0)) / base), stream=self._track, backward=True, any_frame=False
            )
            self._decoded = self._decode()
            landed = self._advance()
            if landed is not None and landed[0] <= wanted:
                self._next = self._advance()
                return landed
        raise SourceError(str(self._path), f"cannot be read at {wanted:.1f} s")

    def _advance(self) -> tuple[float, VideoFrame] | None:
        return next(self._decoded, None)

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        try:
            for frame in self._container.decode(self._track):
                if frame.time is None:
                    continue
                if self._begin is None:
                    self._begin = frame.time
                yield frame.time - self._begin, frame
        except FFmpegError as error:
            raise SourceError(str(self._path), str(error)) from error


def _open(path: Path) -> InputContainer:
    try:
        container: InputContainer = av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise SourceError(str(path), str(error)) from None
    if not container.streams.video:
        container.close()
        raise SourceError(str(path), "there is no video track")
    return container


def _rgb(frame: VideoFrame) -> torch.Tensor:
    """uint8 [3, H, W], turned the way the file says."""
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1)))
