"""A recording played back as if it were happening now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from streamvlm.source.base import Source, SourceStats
from streamvlm.source.options import Clock
from streamvlm.types import Frame


class PacedSource(Source):
    """Another source's frames, each held back until its time has come, counted from the first frame asked for.

    `captured` is the instant a frame was due. A reader that falls behind gets its frames at once, and sees by
    `captured` how far it is behind.
    """

    def __init__(self, inner: Source, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        super().__init__(inner.uri, duration=inner.duration)

    @property
    def stats(self) -> SourceStats:
        """A snapshot of the counts; only frames already released count."""
        return replace(self._inner.stats, frames=self._stats.frames)

    def close(self) -> None:
        """Stop reading and let go of everything. Any thread, any number of times."""
        self._inner.close()
        super().close()

    def _read(self) -> Iterator[Frame]:
        start: float | None = None
        for frame in self._inner:
            if start is None:
                start = self._clock.now() - frame.pts
            due = start + frame.pts
            if self._clock.wait(due - self._clock.now(), self._closed):
                return
            yield replace(frame, captured=due)

    def _release(self) -> None:
        self._inner.close()
