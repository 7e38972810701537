"""Which decoded pictures become frames, decided by presentation time alone."""

from __future__ import annotations

from math import floor

# Matroska rounds times to a millisecond: a picture meant for 1/3 s says 0.333.
TOLERANCE = 1e-3


class Sampler:
    """Takes, for each due time k / fps, the first picture at or after it, and no picture twice.

    Where pictures are further apart than 1 / fps the due times between them are passed over: there is nothing new
    to see at those. This is exact on variable frame rates, as no picture's time is ever worked out from its number.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._due = 0  # number of the next due time
        self._tolerance = TOLERANCE if fps is None else min(TOLERANCE, 0.25 / fps)

    def takes(self, pts: float) -> bool:
        """Whether the picture shown from `pts` seconds on is to be a frame; call in rising order of time."""
        if self._fps is None:
            return True
        cell = self.number(pts)
        if cell < self._due:
            return False
        self._due = cell + 1
        return True

    def number(self, pts: float) -> int:
        """Of the due time that a picture at `pts` seconds is for."""
        assert self._fps is not None
        return floor((pts + self._tolerance) * self._fps)
