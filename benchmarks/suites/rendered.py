"""Stories of StreamWorld as videos, rendered as they are looked at."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

import av
import numpy as np
import torch

from streamvlm import Frame
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.world.paint import Painter
from streamvlm.world.story import Story
from streamvlm.world.video import VideoSpec, encode

CHUNK = 30.0  # seconds of stream that are encoded at a time


class Rendered(Footage):
    """A story as a video."""

    def __init__(self, story: Story, seconds: float) -> None:
        self._story = story
        self._seconds = seconds

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
        painter, spec, chunk = Painter(), VideoSpec(fps=max(1, round(fps))), round(CHUNK * fps)
        first, total = math.ceil(start * fps - 1e-6), round(self._seconds * fps)
        for begin in range(first - first % chunk, total, chunk):
            numbers = range(begin, min(begin + chunk, total))
            file = io.BytesIO()
            encode((painter.frame(self._story, number / fps) for number in numbers), file, spec)
            file.seek(0)
            with av.open(file) as container:
                container.streams.video[0].thread_type = "NONE"  # a few small pictures are not worth starting threads
                for number, picture in zip(numbers, container.decode(video=0), strict=True):
                    if number >= first:
                        yield Frame(_tensor(picture.to_ndarray(format="rgb24")), number / fps, 1 / fps)


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
