"""Stretches of a video, as the engine would have perceived them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from av.error import FFmpegError
from torch import Tensor

from streamvlm.errors import SourceError
from streamvlm.models.base import VisionLanguageModel
from streamvlm.source.address import parse_address
from streamvlm.source.container import open_container
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import RgbConverter
from streamvlm.source.reader import TooManyBroken, VideoReader, timestamp
from streamvlm.source.sampling import TOLERANCE, Sampler
from streamvlm.train.conversations import EPSILON
from streamvlm.vision import PixelSpec, overlapped, resize

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_BACK = 0.05  # seconds before the wanted moment that are decoded too, where times are rounded


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Temporal patches of a stream: its first one, which stays as a sink, then a stretch of it."""

    frames: Tensor  # uint8 [patches·t, 3, h, w], resized for the model
    grid: tuple[int, int]  # tokens of a patch (rows, columns)
    starts: tuple[float, ...]  # seconds, of each patch's first frame
    stops: tuple[float, ...]  # seconds, of each patch's last frame: from when on it is seen

    def seen_at(self, time: float) -> int:
        """How many patches a question at `time` sees; at least the first, which questions wait for."""
        return max(1, sum(stop <= time + EPSILON for stop in self.stops))


def view(video: Path, start: float, stop: float, fps: float, model: VisionLanguageModel) -> View:
    """The first patch and those of [start, stop], at `fps` frames a second.

    Raises:
        SourceError: the video cannot be opened or read, or shows nothing.
    """
    spec, t = model.pixels, model.pixels.advance
    per = t / fps
    first = max(1, int(start / per + EPSILON)) * per  # patches begin where the engine's do; the first is the sink
    with _Video(video, fps) as opened:
        sink, ended = opened.read(0.0, per - 0.5 / fps)
        if not sink:
            raise SourceError(str(video), "it shows nothing")
        rest, lead = list[Shown](), sink[len(sink) - spec.overlap :]
        if stop + EPSILON >= first and not ended:
            if spec.overlap and first > per:
                lead, _ = opened.read(first - spec.overlap / fps, first - 0.5 / fps)
            rest, ended = opened.read(first, stop)
    sink, rest = _whole(sink, t, ended=True), _whole(rest, t, ended)
    patches = [_patches(shown, shared, spec) for shown, shared in ((sink, sink[:1] * spec.overlap), (rest, lead))]
    times, grid = [pts for pts, _ in (*sink, *rest)], model.token_grid(*sink[0][1].shape[1:])
    return View(torch.cat([p for p in patches if len(p)]), grid, tuple(times[::t]), tuple(times[t - 1 :: t]))


Shown = tuple[float, Tensor]  # seconds and uint8 [3, H, W]


def _patches(frames: list[Shown], shared: list[Shown], spec: PixelSpec) -> Tensor:
    """uint8 [patches·t, 3, h, w], the first of which has `shared` in common with the patch before it."""
    if not frames:
        return torch.empty(0)
    size = spec.target_size(*frames[0][1].shape[1:])
    pixels = torch.cat([resize(picture[None], size) for _, picture in (*shared, *frames)])
    return overlapped(pixels[spec.overlap :], pixels[: spec.overlap], spec)


def _whole(frames: list[Shown], per_patch: int, ended: bool) -> list[Shown]:
    """Whole patches; where the video ends in the middle of one, its last frame is shown again, as the engine does."""
    over = len(frames) % per_patch
    if over == 0:
        return frames
    return [*frames, *[frames[-1]] * (per_patch - over)] if ended else frames[:-over]


class _Video:
    """An open file that can be read from any moment on."""

    def __init__(self, path: Path, fps: float) -> None:
        self._name, self._fps = str(path), fps
        options = SourceOptions()
        self._container = open_container(parse_address(path), options)
        self._reader = VideoReader(self._name, self._container, options.max_broken, lambda: None)
        self._rgb = RgbConverter()
        self._origin: float | None = None  # the container's time of the first picture

    def __enter__(self) -> _Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, start: float, stop: float) -> tuple[list[Shown], bool]:
        """Frames of [start, stop], and whether the video ends before `stop`."""
        taken: list[Shown] = []
        sampler, early = Sampler(self._fps), min(TOLERANCE, 0.25 / self._fps)
        try:
            for picture in self._pictures(start):
                pts = picture[0]
                if pts > stop + EPSILON:
                    return taken, False
                if sampler.takes(pts) and pts >= start - early:
                    taken.append((pts, self._rgb(picture[1])))
        except TooManyBroken as error:
            raise SourceError(self._name, f"the file is damaged: {error}") from error
        except FFmpegError as error:
            raise SourceError(self._name, str(error)) from None
        return taken, True

    def _pictures(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Pictures with their stream time, from the last key frame before `start` on."""
        if self._origin is not None and start > 0:
            # A picture that is due at `start` may be shown a little earlier where times are rounded.
            self._container.seek(int((self._origin + start - _BACK) * 1e6))
        for picture in self._reader.pictures():
            at = None if picture is None else timestamp(picture)
            if picture is None or at is None:
                continue
            if self._origin is None:
                self._origin = at
            if at >= self._origin:
                yield at - self._origin, picture
