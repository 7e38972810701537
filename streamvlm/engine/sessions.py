"""Sessions: a stream that is watched again after a restart goes on in the same memory, at later times.

`sessions.jsonl` beside the blocks has a line for each time the stream was watched: where it began on the stream's
clock, what was missed before, and when by the wall clock second 0 was. A camera's clock goes on while nobody watches,
so that "an hour ago" stays true; a file goes on right after what is stored.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from streamvlm.types import Frame

logger = logging.getLogger(__name__)

NAME = "sessions.jsonl"
LEAST_GAP = 1.0  # seconds between two sessions: what lay between them is not known


@dataclass(frozen=True, slots=True)
class Session:
    """One time a stream was watched."""

    start: float  # seconds of stream time
    gap: float  # seconds before `start` that nobody saw; 0 for the first session
    zero: float  # unix time of the stream's second 0


def read_sessions(folder: Path) -> list[Session]:
    """The sessions of a memory, oldest first; lines that a crash left unfinished are passed over."""
    path = folder / NAME
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(Session(**json.loads(line)))
        except (ValueError, TypeError):
            logger.warning("%s: a line is damaged: %r", path, line[:80])
    return found


def next_session(folder: Path, stored_until: float, *, live: bool, clock: Callable[[], float] = time.time) -> Session:
    """Begin to watch once more, after `stored_until` seconds of stream (0: nothing is stored), and write that down."""
    before, now = read_sessions(folder), clock()
    if stored_until <= 0:
        session = Session(0.0, 0.0, now)
    else:
        elapsed = now - before[0].zero if live and before else 0.0
        start = max(stored_until + LEAST_GAP, elapsed)
        session = Session(start, start - stored_until, before[0].zero if live and before else now - start)
    _append(folder / NAME, json.dumps(asdict(session)))
    return session


def _append(path: Path, line: str) -> None:
    """One line more, on the disk. What a crash left of an earlier one is parted from it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.write(fd, f"{chr(10) if torn else ''}{line}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


class Later:
    """A source whose frames come at later times. Everything else about it is as it was."""

    def __init__(self, source: Iterable[Frame], session: Session) -> None:
        self._source = source
        self._session = session
        self.live = bool(getattr(source, "live", False))
        self.uri = str(getattr(source, "uri", "source"))
        duration: float | None = getattr(source, "duration", None)
        self.duration = None if duration is None else duration + session.start  # on the stream's clock, as times are

    def __iter__(self) -> Iterator[Frame]:
        return _later(self._source, self._session)

    def close(self) -> None:
        """Close the source."""
        getattr(self._source, "close", lambda: None)()


def later(source: Iterable[Frame], session: Session) -> Iterable[Frame]:
    """`source` on the clock of a memory that has had earlier sessions."""
    if session.start == 0:
        return source
    # A generator may only be closed by the thread that runs it, so it stays one.
    return _later(source, session) if isinstance(source, Generator) else Later(source, session)


def _later(source: Iterable[Frame], session: Session) -> Generator[Frame, None, None]:
    gap = session.gap
    try:
        for frame in source:
            if not isinstance(frame, Frame):
                raise TypeError(f"a source yields Frame, not {type(frame).__name__}")
            yield replace(frame, pts=frame.pts + session.start, gap=frame.gap + gap)
            gap = 0.0
    finally:
        if isinstance(source, Generator):
            source.close()
