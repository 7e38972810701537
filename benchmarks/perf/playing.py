"""Streams that are played stretch by stretch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import cycle

from torch import Tensor

from streamvlm import Frame, FramePerceived, Stream

FPS = 1.0


def shown(pictures: Sequence[Tensor]) -> Iterator[Frame]:
    """Frames without an end."""
    for index, picture in enumerate(cycle(pictures)):
        yield Frame(picture, index / FPS, 1 / FPS)


def play(stream: Stream, until: float) -> float:
    """Let the stream run on to `until` seconds of stream time; wall seconds that took."""
    begun = time.perf_counter()
    events = stream.listen()
    stream.play(until)
    for event in events:
        if isinstance(event, FramePerceived) and event.pts > until - 1 / FPS + 1e-6:
            return time.perf_counter() - begun
    raise RuntimeError(f"the stream ended before {until} s: {stream.error}")
