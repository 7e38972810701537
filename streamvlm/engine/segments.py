"""Boundaries: where one event ends and the next begins, found while the stream runs."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from streamvlm.engine.sight import Change

LEAST_ERRORS = 8  # known before any is called unusual


@dataclass(slots=True)
class Boundaries:
    """A boundary is where what is seen departs from what was expected by more than `threshold` standard deviations
    of the latest errors (Online Generic Event Boundary Detection's Estimator, arXiv 2510.06855), or where fewer places
    than ever lately stayed as they were (the drop ratio of TimeChat-Online, arXiv 2504.17343). Segments are `least` to
    `most` seconds long.
    """

    threshold: float = 1.5
    history: int = 32  # blocks whose errors are remembered
    least: float = 4.0  # seconds
    most: float = 20.0
    start: float | None = None  # seconds, of the segment that is going on
    _errors: deque[float] = field(default_factory=deque)
    _kept: deque[float] = field(default_factory=deque)

    def see(self, time: float, change: Change) -> tuple[float, float] | None:
        """A block was seen at `time`: the segment [start, stop) that it ends, if it does."""
        unusual = self._unusual(change)
        for values, value in ((self._errors, change.surprise), (self._kept, change.drop_ratio)):
            values.append(value)
            if len(values) > self.history:
                values.popleft()
        if self.start is None:
            self.start = time
        length = time - self.start
        if length >= self.most or (unusual and length >= self.least):
            ended, self.start = (self.start, time), time
            return ended
        return None

    def _unusual(self, change: Change) -> bool:
        if len(self._errors) < LEAST_ERRORS:
            return False
        spread = max(statistics.pstdev(self._errors), 1e-4)  # of a still picture every flicker would be unusual
        surprising = (change.surprise - statistics.fmean(self._errors)) / spread > self.threshold
        return surprising or change.drop_ratio < min(self._kept)
