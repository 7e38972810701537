"""Stories of StreamWorld as videos, rendered as they are looked at."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice

import av
import numpy as np
import torch

from streamvlm import Frame
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.world.paint import Painter
from streamvlm.world.story import Story
from streamvlm.world.video import VideoSpec, encode, frames

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

    def stream(self, fps: float) -> Iterator[Frame]:
        """All of it, through H.264, a stretch at a time, so that no stream is too long."""
        drawn = frames(self._story, self._seconds, fps)
        spec = VideoSpec(fps=max(1, round(fps)))
        while stretch := list(islice(drawn, round(CHUNK * fps))):
            file = io.BytesIO()
            encode((picture for _, picture in stretch), file, spec)
            file.seek(0)
            with av.open(file) as container:
                for (time, _), picture in zip(stretch, container.decode(video=0), strict=True):
                    yield Frame(_tensor(picture.to_ndarray(format="rgb24")), time, 1 / fps)


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
