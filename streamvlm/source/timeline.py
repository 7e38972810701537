"""Container timestamps turned into stream time: it starts at 0 and only ever rises."""

from __future__ import annotations

DEFAULT_STEP = 0.04  # seconds between pictures where a stream does not say
REORDERING = 1.0  # seconds that damaged timestamps may fall back; more is a new timeline
LEAP = 30.0  # seconds that live timestamps may run ahead of the clock; more is a new timeline


class FileTimeline:
    """Stream time of a finite video: each picture's own timestamp, less the first one's."""

    def __init__(self, step: float = DEFAULT_STEP) -> None:
        self._step = step  # nominal seconds between pictures
        self._offset: float | None = None  # stream time = timestamp + offset
        self._last: float | None = None  # stream time of the newest picture

    def place(self, pts: float | None) -> float | None:
        """Stream time of the next picture; None for one that is out of order and has to be left out."""
        if self._last is None:
            self._offset, self._last = (None if pts is None else -pts), 0.0
            return 0.0
        follows = self._last + self._step
        if pts is None:
            self._last = follows
            return follows
        if self._offset is None or pts + self._offset < self._last - REORDERING:
            # Recordings are sometimes glued together, and each part counts from its own start.
            self._offset = follows - pts
        time = pts + self._offset
        if time <= self._last:
            return None
        self._last = time
        return time


class LiveTimeline:
    """Stream time of a live source: timestamps within a connection, the clock between connections."""

    def __init__(self, step: float = DEFAULT_STEP) -> None:
        self.step = step  # nominal seconds between pictures
        self._last: float | None = None  # stream time of the newest picture
        self._arrived = 0.0  # clock time of the newest picture
        self._anchor: tuple[float, float] | None = None  # a timestamp and its stream time
        self._newest: float | None = None  # the newest timestamp
        self._cut = False

    def cut(self) -> None:
        """The connection was lost: timestamps to come have nothing to do with those before."""
        self._anchor, self._newest, self._cut = None, None, True

    def place(self, pts: float | None, now: float) -> tuple[float, float] | None:
        """Stream time of a picture that arrived at clock time `now`, and the seconds lost before it.

        None for a picture that is out of order.
        """
        before = self._last
        time = self._time(pts, now)
        if before is not None and time <= before:
            return None
        gap = max(time - before - self.step, 0.0) if self._cut and before is not None else 0.0
        self._last, self._arrived, self._cut = time, now, False
        self._newest = self._newest if pts is None else pts
        return time, gap

    def _time(self, pts: float | None, now: float) -> float:
        elapsed = now - self._arrived
        if pts is None:
            if self._last is None:
                return 0.0
            return self._last + (self.step if self._anchor else max(elapsed, 1e-3))
        if self._anchor is None or self._leaps(pts, elapsed):
            self._anchor = (pts, 0.0 if self._last is None else self._last + max(elapsed, self.step))
        return self._anchor[1] + (pts - self._anchor[0])

    def _leaps(self, pts: float, elapsed: float) -> bool:
        change = 0.0 if self._newest is None else pts - self._newest
        return change < -REORDERING or change > elapsed + LEAP
