"""`--show-tokens`: the video as the model gets it, with what was left out shaded."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from streamvlm import Frame, FramePerceived, Stream
from streamvlm.demo.shading import Picture, Recent, shaded

REMEMBERED = 512  # frames that may be between the source and the model
TICKS = 1000  # a second


class Tap:
    """A source that remembers its latest frames, small, by their time."""

    def __init__(self, source: Iterable[Frame]) -> None:
        self._source = source
        self.recent = Recent(REMEMBERED)
        self.uri = str(getattr(source, "uri", "source"))
        self.live = bool(getattr(source, "live", False))
        self.duration: float | None = getattr(source, "duration", None)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            self.recent.remember(frame)
            yield frame

    def close(self) -> None:
        """Close the source."""
        getattr(self._source, "close", lambda: None)()


class Film:
    """An H.264 file that pictures are added to; its size is that of the first, made even."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: Any = None
        self._last = -1

    def add(self, pts: float, picture: Picture) -> None:
        """One picture more, at `pts` seconds."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=30, options={"crf": "20"})
            self._stream.height, self._stream.width = (side // 2 * 2 for side in picture.shape[:2])
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(self._stream.width, self._stream.height)
        self._last = max(self._last + 1, round(pts * TICKS))
        frame.pts, frame.time_base = self._last, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write the end."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def shading(stream: Stream, tap: Tap, path: Path) -> Iterator[None]:
    """Write what `stream` perceives of `tap` into `path`, on a thread of its own, until the stream is closed."""
    events = stream.listen()
    film = Film(path)

    def write() -> None:
        for event in events:
            if isinstance(event, FramePerceived):
                for pts, picture in tap.recent.until(event.pts)[-event.frames :]:  # those before it were dropped
                    film.add(pts, shaded(picture, event.grid, event.kept))

    writer = threading.Thread(target=write, name="streamvlm-shading")
    writer.start()
    try:
        yield
    finally:
        stream.close()
        writer.join()
        film.close()
