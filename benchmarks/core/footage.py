"""A video that can be looked at again and again, on disk or made up as it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import dropwhile
from pathlib import Path

import torch

from streamvlm import Frame, open_source
from streamvlm.benchmarks.core import clip

BLACK = 64  # side of the picture that stands for no video, pixels


class Footage(ABC):
    """One video."""

    @property
    @abstractmethod
    def duration(self) -> float:
        """Seconds."""

    @abstractmethod
    def pictures(self, times: Sequence[float], origin: float) -> Iterator[Frame]:
        """What is on screen at each of the rising `times`, seconds; `pts` counts from `origin`."""

    @abstractmethod
    def stream(self, fps: float) -> Iterable[Frame]:
        """All of it, `fps` pictures a second."""

    @property
    def seeks(self) -> bool:
        """Whether `since` costs no more the later it begins."""
        return False

    def since(self, start: float, fps: float) -> Iterator[Frame]:
        """The frames of `stream` from `start` seconds on."""
        return dropwhile(lambda frame: frame.pts < start - 1e-6, self.stream(fps))


class VideoFile(Footage):
    """A file on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def duration(self) -> float:
        """Seconds, as the file says."""
        return clip.duration(self.path)

    def pictures(self, times: Sequence[float], origin: float) -> Iterator[Frame]:
        """Decoded from the key picture before the first of them."""
        return clip.pictures(self.path, times, origin)

    def stream(self, fps: float) -> Iterable[Frame]:
        """By presentation time."""
        return open_source(self.path, fps=fps)


def nothing() -> Iterator[Frame]:
    """One black picture: what a model is shown that is to see no video."""
    yield Frame(torch.zeros(3, BLACK, BLACK, dtype=torch.uint8), 0.0, 1.0)


def only_until(frames: Iterable[Frame], moment: float) -> Iterator[Frame]:
    """`frames`, with a check that none is later than `moment` seconds: a question must not see its future."""
    for frame in frames:
        assert frame.pts <= moment + 1e-3, f"a frame of {frame.pts} s for a question at {moment} s"
        yield frame
