"""Reading live sources in the tests: how long to wait, and what a stream lost once must look like."""

from __future__ import annotations

from media import number_of

from streamvlm.source import Backoff, Source, SourceOptions
from streamvlm.types import Frame

# The first attempt is later than the next picture would have been, so that every loss leaves a gap.
QUICK = SourceOptions(open_timeout=20, read_timeout=20, backoff=Backoff(initial=0.2, longest=0.2, attempts=200))
IMPATIENT = SourceOptions(open_timeout=20, read_timeout=1, backoff=Backoff(initial=0.2, longest=0.2, attempts=200))


def take_until(source: Source, number: int) -> list[Frame]:
    """Frames up to the first that carries `number` or more."""
    frames: list[Frame] = []
    for frame in source:
        frames.append(frame)
        if number_of(frame.data) >= number:
            return frames
    raise AssertionError(f"the stream ended before picture {number}")


def check_one_loss(source: Source, frames: list[Frame], restart: int) -> None:
    """The stream was lost once and resumed at picture `restart`; time went on and the gap is reported once."""
    pts = [frame.pts for frame in frames]
    assert pts == sorted(set(pts))
    assert pts[0] == 0.0
    seen = [number_of(frame.data) for frame in frames]
    assert seen == sorted(set(seen))
    resumed = next(index for index, number in enumerate(seen) if number >= restart)
    gaps = [index for index, frame in enumerate(frames) if frame.gap > 0]
    assert gaps == [resumed]
    assert frames[resumed].gap < pts[resumed] - pts[resumed - 1]
    assert source.stats.reconnects == 1
    assert source.stats.gap_seconds == frames[resumed].gap
    captured = [frame.captured for frame in frames]
    assert all(moment is not None for moment in captured)
