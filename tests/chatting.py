"""What the tests of the chat share: sessions around the embedded model, and sources without a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from streamvlm import Agent
from streamvlm.demo.chat.feeds import CameraFeed
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.pictures import jpeg
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sources import CAMERA, Choice, Sources
from streamvlm.demo.chat.transcript import Entry

PATIENCE = 60.0  # seconds
EARLY = 1e7  # on the monotonic clock: pictures from then are never late, so nothing is given up to keep up


def until(true: Callable[[], bool], what: str = "it") -> None:
    """Wait for something another thread does; fails loudly when it does not."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.01)


def answered(session: Session, entry: Entry) -> str:
    """The reply, once it is there."""

    def done() -> bool:
        session.transcript.follow()
        return not entry.open

    until(done, f"an answer to {entry.text!r}")
    return entry.reply


def session_in(folder: Path, agent: Agent, limits: Limits | None = None, sources: Sources | None = None) -> Session:
    """One visitor's session."""
    return Session("visitor", folder, agent, sources or Sources(), limits or Limits())


def watch_camera(session: Session) -> CameraFeed:
    """Start the camera; pictures are pushed by hand."""
    feed = session.start(Choice(CAMERA)).feed
    assert isinstance(feed, CameraFeed)
    return feed


def show(session: Session, pictures: list[tuple[float, bytes]]) -> None:
    """Push JPEGs (time, bytes) and wait after each until the model has seen it."""
    run = session.run
    assert run is not None and isinstance(run.feed, CameraFeed)
    for time_, picture in pictures:
        run.feed.push(picture, EARLY + time_)
        until(lambda at=time_: run.stream.now is not None and run.stream.now >= at - 1e-6, f"frame {time_}")  # type: ignore[misc]


__all__ = ["answered", "jpeg", "session_in", "show", "until", "watch_camera"]
