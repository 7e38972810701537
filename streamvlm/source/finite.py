"""Videos with an end: local files, and files on a web server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from av.error import FFmpegError

from streamvlm.errors import SourceError
from streamvlm.source.address import Address, Medium
from streamvlm.source.base import Source
from streamvlm.source.container import explain
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import RgbConverter
from streamvlm.source.reader import TooManyBroken, VideoReader, timestamp
from streamvlm.source.sampling import Sampler
from streamvlm.source.timeline import FileTimeline
from streamvlm.types import Frame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame


class FiniteSource(Source):
    """A video with an end, read as fast as it is asked for.

    A local file that is cut off gives what can be decoded and then ends, with `stats.truncated` set. Any other
    failure, and a failing connection, is a SourceError: it must not pass for the end of the video.
    """

    def __init__(self, address: Address, container: InputContainer, fps: float | None, options: SourceOptions) -> None:
        self._options = options
        self._local = address.medium is Medium.FILE
        self._fps = fps
        self._reader = VideoReader(address.shown, container, options.max_broken, self._count_broken)
        self._reader.decode_with_threads(across_pictures=True)
        super().__init__(address.shown, duration=self._reader.duration)

    def _read(self) -> Iterator[Frame]:
        sampler, rgb, timeline = Sampler(self._fps), RgbConverter(), FileTimeline(self._reader.step)
        reached = 0.0
        seen = False
        for picture in self._pictures():
            seen = True
            pts = timeline.place(timestamp(picture))
            if pts is None:
                continue
            reached = pts
            if sampler.takes(pts):
                duration = self._reader.shown_for(picture) if self._fps is None else 1 / self._fps
                yield Frame(rgb(picture), pts, duration)
        if self._closed.is_set():
            return  # what is missing was not wanted
        if not seen:
            raise SourceError(self.uri, f"no picture could be decoded{self._broken()}")
        if self._local and (self._reader.cut_off or self._reader.missing() > 0):
            self._mark_truncated(reached)

    def _pictures(self) -> Iterator[VideoFrame]:
        try:
            for picture in self._reader.pictures():
                if self._closed.is_set():
                    return
                if picture is not None:
                    yield picture
        except TooManyBroken as error:
            raise SourceError(self.uri, f"the file is damaged: {error}") from error
        except FFmpegError as error:
            raise SourceError(self.uri, explain(error, self._options.read_timeout)) from None

    def _broken(self) -> str:
        count = self.stats.packets_broken
        return f": {count} packets are broken" if count else ""

    def _release(self) -> None:
        self._reader.close()
