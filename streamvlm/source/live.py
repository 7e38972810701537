"""Sources without an end: cameras and network streams, which are found again when they are lost."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from av.error import FFmpegError

from streamvlm.errors import SourceError
from streamvlm.source.address import Address
from streamvlm.source.base import Source
from streamvlm.source.container import explain, open_container
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import RgbConverter
from streamvlm.source.reader import TooManyBroken, VideoReader, timestamp
from streamvlm.source.sampling import Sampler
from streamvlm.source.timeline import LiveTimeline
from streamvlm.types import Frame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

log = logging.getLogger(__name__)


class LiveSource(Source):
    """A camera or a network stream.

    Its end is a lost connection: it is opened again with growing delays, stream time goes on by the clock, and the
    first frame after it carries the seconds lost as `gap`. SourceError when every attempt has failed.
    """

    def __init__(self, address: Address, container: InputContainer, fps: float | None, options: SourceOptions) -> None:
        self._address = address
        self._options = options
        self._clock = options.clock
        self._fps = fps
        self._reader = self._reader_of(container)
        self._timeline = LiveTimeline(self._reader.step)
        self._sampler = Sampler(fps)
        self._rgb = RgbConverter()
        self._gap = 0.0  # seconds lost since the last frame handed out
        self._failures = 0  # attempts since the last picture
        super().__init__(address.shown, live=True)

    def _reader_of(self, container: InputContainer) -> VideoReader:
        reader = VideoReader(self._address.shown, container, self._options.max_broken, self._count_broken)
        reader.decode_with_threads(across_pictures=False)
        return reader

    def _read(self) -> Iterator[Frame]:
        while not self._closed.is_set():
            cause = yield from self._watch_connection()
            self._reader.close()
            self._timeline.cut()
            if self._closed.is_set() or not self._reconnect(cause):
                return

    def _watch_connection(self) -> Generator[Frame, None, str]:
        """Yield this connection's frames; returns why it ended."""
        silent_since = self._clock.now()
        try:
            for picture in self._reader.pictures():
                if self._closed.is_set():
                    return "closed"
                now = self._clock.now()
                if picture is None:
                    if now - silent_since > self._options.read_timeout:
                        return f"no picture for {self._options.read_timeout:g} s"
                    continue
                frame = self._frame(picture, now)
                if frame is not None:
                    yield frame
                silent_since = self._clock.now()
        except TooManyBroken as error:
            return str(error)
        except FFmpegError as error:
            return explain(error, self._options.read_timeout)
        return "the stream ended"

    def _frame(self, picture: VideoFrame, now: float) -> Frame | None:
        self._failures = 0
        placed = self._timeline.place(timestamp(picture), now)
        if placed is None:
            return None
        pts, lost = placed
        if lost > 0:
            self._gap += lost
            self._stats = replace(self._stats, gap_seconds=self._stats.gap_seconds + lost)
        if not self._sampler.takes(pts):
            return None
        gap, self._gap = self._gap, 0.0
        duration = self._reader.shown_for(picture) if self._fps is None else 1 / self._fps
        return Frame(self._rgb(picture), pts, duration, captured=now, gap=gap)

    def _reconnect(self, cause: str) -> bool:
        """Open the source again; False when it was closed meanwhile, or turned out to have come to its end."""
        backoff = self._options.backoff
        while backoff.attempts is None or self._failures < backoff.attempts:
            delay = backoff.delay(self._failures)
            log.warning("%s: connection lost (%s), trying again in %.1f s", self.uri, cause, delay)
            if self._clock.wait(delay, self._closed):
                return False
            self._failures += 1
            try:
                container = open_container(self._address, self._options)
                self._reader = self._reader_of(container)
            except SourceError as error:
                cause = error.cause
                continue
            if self._reader.duration is not None:
                log.info("%s: the broadcast has ended and is now a recording", self.uri)
                return False
            self._timeline.step = self._reader.step
            self._stats = replace(self._stats, reconnects=self._stats.reconnects + 1)
            return True
        raise SourceError(
            self.uri, f"the stream was lost ({cause}) and {self._failures} attempts to get it back failed"
        )

    def _release(self) -> None:
        self._reader.close()
