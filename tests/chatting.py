"""What the tests of the chat share: sessions around the embedded model, and sources without a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from streamvlm import Agent, open_source
from streamvlm.demo.chat.feeds import CameraFeed
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.pictures import jpeg
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sources import CAMERA, Choice, Sources
from streamvlm.demo.chat.transcript import Entry
from streamvlm.demo.job import Question, read_questions

SAMPLE = Path(__file__).resolve().parent.parent / "demo" / "sample.mp4"
PATIENCE = 240.0  # seconds; only a failing test waits that long
EARLY = 1e7  # on the monotonic clock: pictures from then are never late, so nothing is given up to keep up


Pictures = list[tuple[float, bytes]]


def sample_pictures() -> Pictures:
    """The first 16 s of the sample as a camera sends them: (seconds, JPEG)."""
    with open_source(SAMPLE, fps=2.0) as source:
        return [(frame.pts, jpeg(frame.data, 640, 95)) for frame in takewhile(lambda f: f.pts < 16.0, source)]


def sample_question(after: float, before: float) -> Question:
    """One whose moment lies between these."""
    return next(q for q in read_questions(SAMPLE.with_suffix(".json")) if after <= q.time < before)


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


def show(session: Session, pictures: Pictures) -> None:
    """Push JPEGs (time, bytes) and wait after each until the model has seen it."""
    run = session.run
    assert run is not None and isinstance(run.feed, CameraFeed)
    for time_, picture in pictures:
        run.feed.push(picture, EARLY + time_)
        until(lambda at=time_: run.stream.now is not None and run.stream.now >= at - 1e-6, f"frame {time_}")  # type: ignore[misc]
