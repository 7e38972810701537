"""Stories of StreamWorld as videos, rendered as they are looked at."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import av
import numpy as np
import torch

from streamvlm import Frame
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.world.paint import Painter
from streamvlm.world.story import Story
from streamvlm.world.video import VideoSpec, encode

CHUNK = 30.0  # seconds of stream that are encoded at a time
KEPT = 2  # chunks that stay decoded: a question's window lies in as many


class Rendered(Footage):
    """A story as a video."""

    def __init__(self, story: Story, seconds: float) -> None:
        self._story = story
        self._seconds = seconds
        self._chunk = lru_cache(KEPT)(self._encoded)  # questions that follow each other look at the same

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._seconds

    def pictures(self, times: Sequence[float], origin: float) -> Iterator[Frame]:
        """Drawn at these moments, and not encoded."""
        painter = Painter()
        for moment in times:
            yield Frame(_tensor(painter.frame(self._story, moment)), moment - origin, 1.0)

    @property
    def seeks(self) -> bool:
        """Nothing before it need be drawn but the stretch it is encoded with."""
        return True

    def stream(self, fps: float) -> Iterator[Frame]:
        """All of it, through H.264, a stretch at a time, so that no stream is too long."""
        return self.since(0.0, fps)

    def since(self, start: float, fps: float) -> Iterator[Frame]:
        """The same from `start` seconds on, to the bit."""
        chunk, first = round(CHUNK * fps), math.ceil(start * fps - 1e-6)
        for begin in range(first - first % chunk, round(self._seconds * fps), chunk):
            yield from (frame for frame in self._chunk(begin, fps) if frame.pts * fps >= first - 1e-6)

    def _encoded(self, begin: int, fps: float) -> list[Frame]:
        """The chunk from frame number `begin` on."""
        painter, spec, file = Painter(), VideoSpec(fps=max(1, round(fps))), io.BytesIO()
        numbers = range(begin, min(begin + round(CHUNK * fps), round(self._seconds * fps)))
        encode((painter.frame(self._story, number / fps) for number in numbers), file, spec)
        file.seek(0)
        with av.open(file) as container:
            container.streams.video[0].thread_type = "NONE"  # a few small pictures are not worth starting threads
            pictures = (_tensor(picture.to_ndarray(format="rgb24")) for picture in container.decode(video=0))
            return [Frame(p, number / fps, 1 / fps) for number, p in zip(numbers, pictures, strict=True)]


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
