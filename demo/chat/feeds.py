"""Feeds: what a run is shown. Each is an iterable of frames that goes by the clock and lets the app look on."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Self

import numpy as np
import torch

from streamvlm import Frame, SourceOptions, open_source
from streamvlm.demo.chat.pictures import decoded
from streamvlm.demo.chat.refusals import Refused
from streamvlm.world.story import Story
from streamvlm.world.video import frames

Look = Callable[[Frame], None]


class Feed(ABC):
    """Frames in their own time. One thread iterates; any thread may `close()`."""

    live = True  # tells the engine that nothing waits: the newest frame wins
    duration: float | None = None  # seconds, where known

    def __init__(self, name: str) -> None:
        self.uri = name
        self.taken = 0  # frames handed to the engine
        self.look: Look = lambda frame: None  # sees every frame just before the engine does
        self._changed = threading.Condition()
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        frame = self._next()
        if frame is None or self._closed:
            raise StopIteration
        self.taken += 1
        self.look(frame)
        return frame

    @abstractmethod
    def _next(self) -> Frame | None:
        """Wait for the next frame; None at the end."""

    def _wait(self, seconds: float | None) -> bool:
        """Wait that long or until something changed; says whether the feed is closed."""
        with self._changed:
            if not self._closed:
                self._changed.wait(seconds)
            return self._closed

    def close(self) -> None:
        """End it; a waiting reader returns. Harmless when called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class CameraFeed(Feed):
    """Pictures that a visitor's browser sends. The newest waits for the reader; those it pushes out are counted."""

    def __init__(self, name: str, fps: float, most_pixels: int) -> None:
        super().__init__(name)
        self.received = 0
        self.dropped = 0  # newer ones came first, or they came faster than agreed
        self.broken = 0
        self._shortest = 0.5 / fps  # seconds between two pictures; half, for no clock is exact
        self._duration = 1 / fps
        self._most_pixels = most_pixels
        self._waiting: tuple[float, bytes] | None = None
        self._first: float | None = None
        self._last = -1.0  # seconds of stream

    def push(self, picture: bytes, taken: float) -> None:
        """A JPEG and when it was taken, in seconds of `time.monotonic()`. Never blocks for long."""
        with self._changed:
            self.received += 1
            self._first = taken if self._first is None else self._first
            if taken - self._first < self._last + self._shortest or self._waiting is not None:
                self.dropped += 1
            if taken - self._first >= self._last + self._shortest:
                self._waiting = (taken, picture)
                self._changed.notify_all()

    def _next(self) -> Frame | None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed or self._waiting is None or self._first is None:
                    return None
                (taken, picture), self._waiting = self._waiting, None
                self._last = taken - self._first
            try:
                data = decoded(picture, self._most_pixels)
            except Refused:
                self.broken += 1
                continue
            return Frame(data, self._last, self._duration, captured=taken)


class FileFeed(Feed):
    """A video file that follows a player: it pauses, skips ahead and speeds up with it.

    Stream time is the file's own. What the player goes back to has been seen already, so the feed waits until the
    player comes to something new; what it skips has not been seen, and the next frame says so by its `gap`.
    """

    PATIENCE = 1.0  # seconds the player may be ahead before frames are skipped

    def __init__(self, name: str, path: str, fps: float) -> None:
        super().__init__(name)
        self._source = open_source(path, fps=fps)
        self.duration = self._source.duration
        self._playing = False
        self._rate = 1.0
        self._place = 0.0  # seconds of file at `_since`
        self._since = time.monotonic()

    @property
    def playhead(self) -> float:
        """Where the player is, in seconds of file."""
        return self._place + (time.monotonic() - self._since) * self._rate * self._playing

    def follow(self, place: float, playing: bool, rate: float) -> None:
        """The player is at `place` seconds, playing or not, at that speed."""
        with self._changed:
            self._place, self._playing, self._since = max(0.0, place), playing, time.monotonic()
            self._rate = min(max(rate, 0.1), 16.0)
            self._changed.notify_all()

    def _next(self) -> Frame | None:
        skipped = 0.0
        for frame in self._source:
            while not self._closed and frame.pts > self.playhead:
                self._wait((frame.pts - self.playhead) / self._rate if self._playing else None)
            if self._closed:
                return None
            if frame.pts + self.PATIENCE < self.playhead:
                skipped += frame.duration
                continue
            return replace(frame, captured=time.monotonic(), gap=frame.gap + skipped)
        return None

    def close(self) -> None:
        """End it and close the file."""
        super().close()
        self._source.close()


class NetworkFeed(Feed):
    """A camera or a broadcast on the network; `follow`: also to where its server sends us over HTTP."""

    def __init__(self, name: str, url: str, fps: float, *, follow: bool = True) -> None:
        super().__init__(name)
        self._source = open_source(url, fps=fps, realtime=True, options=SourceOptions(follow=follow))
        self.duration = self._source.duration

    def _next(self) -> Frame | None:
        return next(self._source, None)

    def close(self) -> None:
        """End it and hang up."""
        super().close()
        self._source.close()


class WorldFeed(Feed):
    """A StreamWorld story, drawn as it happens: something to look at where there is no camera."""

    SECONDS = 12 * 3600.0

    def __init__(self, name: str, seed: int, fps: float) -> None:
        super().__init__(name)
        self._duration = 1 / fps
        self._pictures: Iterator[tuple[float, object]] = frames(Story(seed), self.SECONDS, fps)
        self._begun: float | None = None

    def _next(self) -> Frame | None:
        pts, picture = next(self._pictures, (None, None))
        if pts is None:
            return None
        if self._begun is None:
            self._begun = time.monotonic() - pts
        due = self._begun + pts
        while (wait := due - time.monotonic()) > 0:
            if self._wait(wait):
                return None
        data = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # a copy: theirs is read-only
        return Frame(data, pts, self._duration, captured=due)
