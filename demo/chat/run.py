"""Run: one source being watched for one visitor, with its pictures for looking back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from streamvlm import Agent, Frame, FramePerceived, FramesDropped, SourceError, Stream, StreamEvent
from streamvlm.demo.chat.addresses import without_credentials
from streamvlm.demo.chat.feeds import Feed
from streamvlm.demo.chat.filmstrip import Filmstrip
from streamvlm.demo.chat.instruments import Instruments
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.pictures import jpeg
from streamvlm.demo.chat.sources import Choice

PICTURE_WIDTH = 320  # pixels, of the pictures kept
VIEW_WIDTH = 640  # pixels, of the preview
FORGETFUL = ("last_frames", "sliding_recompute")  # policies under which nothing can be stored

Tell = Callable[["Run", StreamEvent], None]


class Run:
    """Owns the feed, the stream, the filmstrip and the thread that follows the stream's events.

    Args:
        folder: of this run alone; holds `memory/` and `pictures`.
        tell: called with every event of the stream, on one thread.
    """

    def __init__(
        self, number: int, choice: Choice, feed: Feed, agent: Agent, folder: Path, limits: Limits, tell: Tell
    ) -> None:
        self.number = number
        self.choice = choice
        self.feed = feed
        self.instruments = Instruments()
        self.strip = Filmstrip(folder / "pictures", limits.pictures_bytes)
        self.view_wanted = 0.0  # seconds of the monotonic clock until which somebody looks at the model's view
        self.view: tuple[float, bytes] | None = None  # its newest frame: presentation time, JPEG
        self._tell = tell
        feed.look = self._look
        kept = {"store": str(folder / "memory"), "store_quota_mb": limits.store_mb}
        try:
            self.stream: Stream = agent.watch(feed, **({} if agent.watch_config.policy in FORGETFUL else kept))
        except BaseException:
            feed.close()
            self.strip.close()
            raise
        self._events = self.stream.listen()
        self._follower = threading.Thread(target=self._follow, name="chat-follow", daemon=True)
        self._follower.start()

    def _look(self, frame: Frame) -> None:
        """Runs on the engine's reading thread, once per frame."""
        if self.strip.wants(frame.pts):
            self.strip.add(frame.pts, jpeg(frame.data, PICTURE_WIDTH))
        if self.view_wanted > time.monotonic():
            self.view = (frame.pts, jpeg(frame.data, VIEW_WIDTH))

    def _follow(self) -> None:
        for event in self._events:
            if isinstance(event, FramePerceived):
                self.instruments.perceived(event)
            elif isinstance(event, FramesDropped):
                self.instruments.dropped(event)
            self._tell(self, event)

    def sample(self) -> bool:
        """Take the instruments' reading if a second has passed; whether there is a new one."""
        return self.instruments.sample(time.monotonic(), self.feed.taken, self.stream.stats)

    @property
    def trouble(self) -> str:
        """Why it ended, in words that hold no address and no password; empty if it ended well."""
        error = self.stream.error
        if error is None:
            return ""
        return without_credentials(error.cause if isinstance(error, SourceError) else str(error))

    def close(self) -> None:
        """Stop watching and let go of everything; harmless when called again."""
        self.feed.close()
        self.stream.close()
        self._follower.join(5.0)
        self.strip.close()
