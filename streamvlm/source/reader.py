"""Decoding one opened container, picture by picture, past what is broken in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from streamvlm.errors import SourceError
from streamvlm.source.timeline import DEFAULT_STEP

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Containers whose header declares their length; in the others FFmpeg estimates it.
_DECLARE_LENGTH = frozenset({"mov", "matroska", "avi", "flv"})
_SLACK = 1.0  # seconds by which headers are commonly wrong


class TooManyBroken(Exception):
    """So many packets in a row could not be decoded that going on makes no sense."""


class VideoReader:
    """The pictures of a container's video track, decoded one at a time. Owns the container."""

    def __init__(
        self,
        shown: str,
        container: InputContainer,
        max_broken: int,
        on_broken: Callable[[], None],
    ) -> None:
        self._container = container
        self._max_broken = max_broken
        self._on_broken = on_broken
        self._streak = 0  # broken packets in a row
        self._stop: float | None = None  # seconds at which the furthest packet of any track ends
        self.cut_off = False  # the container itself ended early, in the middle of its data
        try:
            self._stream = _video_track(shown, container)
        except SourceError:
            container.close()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.step = float(1 / rate) if rate else DEFAULT_STEP  # nominal seconds between pictures
        self.duration = None if container.duration is None else container.duration / 1e6  # seconds

    def pictures(self) -> Iterator[VideoFrame | None]:
        """Yield each picture in order of presentation, and None after a packet that gave none.

        The None lets the caller look at its clock while only sound arrives. Raises TooManyBroken, and FFmpegError
        when the connection fails.
        """
        for packet in self.packets():
            if not self.shows(packet):
                yield None
                continue
            pictures = self._decode(packet)
            yield from pictures
            if not pictures:
                yield None

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets of every track, past those that cannot be read."""
        damaged = 0
        while damaged < self._max_broken:
            try:
                for packet in self._container.demux():
                    damaged = 0
                    self._note_stop(packet)
                    yield packet
                return
            except InvalidDataError:
                damaged += 1
                self._on_broken()
        self.cut_off = True

    def shows(self, packet: Packet[Any]) -> bool:
        """Whether a packet is of the video track that is read."""
        return bool(packet.stream.index == self._stream.index)

    def shown_for(self, picture: VideoFrame) -> float:
        """Seconds a picture is shown for."""
        seconds = float((picture.duration or 0) * (picture.time_base or 0))
        return seconds if seconds > 0 else self.step

    def decode_with_threads(self, across_pictures: bool) -> None:
        """Let FFmpeg decode several pictures at once, which is faster but holds each back by a few pictures."""
        self._stream.thread_type = "AUTO" if across_pictures else "SLICE"

    def decode_alone(self) -> None:
        """Decode on the calling thread only."""
        self._stream.thread_type = "NONE"

    def seek(self, ticks: int) -> None:
        """Go on from the keyframe at `ticks` of the track's time base, or the one before it."""
        self._container.seek(ticks, stream=self._stream, backward=True)

    @property
    def format(self) -> frozenset[str]:
        """The names of the container's format."""
        return frozenset(self._container.format.name.split(","))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the container; may be called more than once."""
        self._container.close()

    def missing(self) -> float:
        """Seconds between where the data ended and where the header says it should; 0 when it does not say."""
        if self.duration is None or self._stop is None:
            return 0.0
        if _DECLARE_LENGTH.isdisjoint(self._container.format.name.split(",")):
            return 0.0
        begin = (self._container.start_time or 0) / 1e6
        missing = begin + self.duration - self._stop
        return missing if missing > _SLACK else 0.0

    def _note_stop(self, packet: Packet[Any]) -> None:
        if packet.pts is not None and packet.time_base:
            stop = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._stop = stop if self._stop is None else max(self._stop, stop)

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        try:
            decoded: list[VideoFrame] = packet.decode()
        except FFmpegError:
            self._broke()
            return []
        whole = [picture for picture in decoded if not picture.is_corrupt]
        for _ in range(len(decoded) - len(whole)):
            self._broke()
        if whole:
            self._streak = 0
        return whole

    def _broke(self) -> None:
        self._on_broken()
        self._streak += 1
        if self._streak >= self._max_broken:
            raise TooManyBroken(f"{self._streak} packets in a row could not be decoded")


def timestamp(picture: VideoFrame) -> float | None:
    """The container's timestamp of a picture, in seconds; None when it has none."""
    if picture.pts is None or picture.time_base is None:
        return None
    return float(picture.pts * picture.time_base)


def _video_track(shown: str, container: InputContainer) -> VideoStream:
    tracks = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not tracks:
        raise SourceError(shown, _no_video(container))
    best = container.streams.best("video")
    # Tracks define no equality of their own across wrappers, so compare by number.
    stream = next((s for s in tracks if best is not None and s.index == best.index), tracks[0])
    if stream.codec_context is None:
        raise SourceError(shown, "this FFmpeg has no decoder for the video's codec")
    return stream


def _no_video(container: InputContainer) -> str:
    if container.streams.video:
        return "there is no video track, only sound and a cover picture"
    return "there is no video track, only sound" if container.streams.audio else "there is no video track"
