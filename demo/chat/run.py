"""Run: one source being watched for one visitor, and what is shown of it meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from streamvlm import Agent, Frame, FramePerceived, FramesDropped, SourceError, Stream, StreamEvent
from streamvlm.demo.chat.addresses import without_credentials
from streamvlm.demo.chat.feeds import Feed
from streamvlm.demo.chat.instruments import Instruments
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.pictures import jpeg
from streamvlm.demo.chat.sources import Choice
from streamvlm.demo.shading import Recent, shaded

PICTURE_WIDTH = 320  # pixels, of the pictures kept
VIEW_WIDTH = 640  # pixels, of the preview
WAITING = 32  # frames that may be between the source and the model while somebody looks
FORGETFUL = ("last_frames", "sliding_recompute")  # policies under which nothing can be stored

Tell = Callable[["Run", StreamEvent], None]


@dataclass(frozen=True, slots=True)
class View:
    """A frame to look at."""

    pts: float  # seconds
    picture: bytes  # JPEG
    kept: int = 0  # tokens that the model was given of it
    tokens: int = 0  # and that it has; 0 where the model has not seen it yet


class Run:
    """Owns the feed, the stream and the thread that follows the stream's events.

    Args:
        memory: folder of its keys, values and pictures; one that an earlier run of the same source left goes on.
        tell: called with every event of the stream, on one thread.
    """

    def __init__(
        self, number: int, choice: Choice, feed: Feed, agent: Agent, memory: Path, limits: Limits, tell: Tell
    ) -> None:
        self.number = number
        self.choice = choice
        self.feed = feed
        self.instruments = Instruments()
        self.preview_wanted = 0.0  # seconds of the monotonic clock until which somebody looks at the source's frames
        self.view_wanted = 0.0  # and at them as the model has seen them
        self.preview: View | None = None
        self.view: View | None = None
        self._recent = Recent(WAITING)
        self._tell = tell
        feed.look = self._look
        wide = agent.watch_config.store_pictures and max(PICTURE_WIDTH, agent.watch_config.store_pictures)
        kept = {"store": str(memory), "store_quota_mb": limits.store_mb, "store_pictures": wide}
        try:
            self.stream: Stream = agent.watch(feed, **({} if agent.watch_config.policy in FORGETFUL else kept))
        except BaseException:
            feed.close()
            raise
        self._events = self.stream.listen()
        self._follower = threading.Thread(target=self._follow, name="chat-follow", daemon=True)
        self._follower.start()

    def _look(self, frame: Frame) -> None:
        """Runs on the engine's reading thread, once per frame."""
        now = time.monotonic()
        if self.preview_wanted > now:
            self.preview = View(frame.pts, jpeg(frame.data, VIEW_WIDTH))
        if self.view_wanted > now:
            self._recent.remember(frame)

    def _see(self, event: FramePerceived) -> None:
        """Show the newest of these frames as the model saw it."""
        pictures = self._recent.until(event.pts - self.stream.began)
        if pictures and self.view_wanted > time.monotonic():
            drawn = torch.from_numpy(shaded(pictures[-1][1], event.grid, event.kept)).permute(2, 0, 1)
            tokens = event.grid[0] * event.grid[1]
            self.view = View(event.pts, jpeg(drawn, VIEW_WIDTH), len(event.kept), tokens)

    def _follow(self) -> None:
        for event in self._events:
            if isinstance(event, FramePerceived):
                self.instruments.perceived(event)
                self._see(event)
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
