"""Rationing: frames left out and pictures made smaller, as a stream's ration says. Runs on its encode thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from streamvlm.engine.ration import MARGIN, Choice, Limits, Ration, Size
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import WatchConfig
from streamvlm.source.sampling import TOLERANCE
from streamvlm.types import Frame, VisionTokens
from streamvlm.vision import resize, smart_resize

STEP = 1.25  # by which the pixels of one size are more than those of the next
LOOK = 32  # parts of a picture on a side, by which it is seen whether it moves
CHANGED = 6.0  # levels of 255 by which a part changes on average when something moves in it


class Rationing:
    """What one stream's encode thread is shown.

    A change holds from one temporal patch to the next, so that the pictures of a patch have one size; every patch is
    laid out by its own grid, and the cursor advances by that. A family with a fixed grid has one size, so that there
    only the frame rate gives way; so it is with a model whose min_pixels and max_pixels are the same.
    """

    def __init__(self, model: VisionLanguageModel, terms: Limits) -> None:
        self.ration = Ration(terms)
        self.spared = 0  # frames left out
        self.told = 0  # choices that the engine has told
        self.changed: Choice | None = None  # what was chosen for the latest patch, if it was another choice
        self.resized = False  # whether the latest patch has another size than the one before it
        self._model = model
        self._due = 0  # number of the next frame that is shown, of those asked for
        self._last: tuple[float, Tensor] | None = None  # time and look, float32 [3, LOOK, LOOK], of the newest frame
        self._shape: torch.Size | None = None  # of the latest patch's pictures as they came
        self._sizes: tuple[Size, ...] = ()
        self._shown: tuple[int, int] | None = None  # pixels of the latest patch

    @property
    def every(self) -> int:
        """Of so many frames asked for, one is shown now."""
        return 1 if self.ration.choice is None else self.ration.choice.every

    def taken(self, frames: Sequence[Frame]) -> list[Frame]:
        """Those of the frames that are shown, each lasting until the next one."""
        return [shown for frame in frames if (shown := self._taken(frame)) is not None]

    def _taken(self, frame: Frame) -> Frame | None:
        self._look(frame)
        choice, terms = self.ration.choice, self.ration.terms
        if choice is None:
            return frame
        number = math.floor((frame.pts + min(TOLERANCE, 0.25 / terms.fps)) * terms.fps)
        if choice.every > 1 and number < self._due and not frame.gap:  # what follows a gap is shown at once
            self.spared += 1
            return None
        self._due = number + choice.every
        return frame if choice.every == 1 else replace(frame, duration=choice.every / terms.fps)

    def shown(self, pixels: Tensor, pts: float) -> Tensor:
        """The pictures of a patch at `pts` seconds, uint8 [t, 3, H, W], in the size that they are shown in."""
        if pixels.shape != self._shape:
            self._shape, self._sizes = pixels.shape, sizes_of(self._model, *pixels.shape[2:])
        self.changed = self.ration.choice if self.ration.choose(pts, self._sizes) else None
        assert self.ration.choice is not None
        size = (self.ration.choice.size.height, self.ration.choice.size.width)
        self.resized, self._shown = size != self._shown, size
        return pixels if size == tuple(pixels.shape[2:]) else resize(pixels.to(self._model.device), size)

    def spent(self, tokens: VisionTokens, seconds: float) -> None:
        """What was kept of the patch."""
        self.ration.kept(len(tokens), tokens.grid[0] * tokens.grid[1], seconds)

    def room(self, *, pruned: bool) -> tuple[int, int]:
        """Tokens that are to have room: on average for every temporal patch that was asked for, and of the largest one.
        What pruning leaves for the moment does not say what comes, so that with it there is room for all."""
        terms, sizes = self.ration.terms, self._sizes
        largest = sizes[0].tokens
        if pruned or math.isinf(terms.budget):
            return largest, largest
        patches = terms.fps / terms.advance  # a second
        usual = max(terms.budget * (1 + MARGIN), patches / terms.slowest * sizes[-1].tokens) / patches
        return min(largest, math.ceil(usual)), largest

    def _look(self, frame: Frame) -> None:
        look = adaptive_avg_pool2d(frame.data.float(), LOOK)
        if self._last is not None and frame.pts > self._last[0]:
            moved = (look - self._last[1]).abs().mean(0) >= CHANGED
            self.ration.moved(float(moved.float().mean()), frame.pts - self._last[0])
        self._last = (frame.pts, look)


def sizes_of(model: VisionLanguageModel, height: int, width: int) -> tuple[Size, ...]:
    """The sizes in which a picture may be shown, the largest first: as it is, and by the family's own rule as if
    `max_pixels` were less and less, down to `min_pixels`.

    Raises:
        ValueError: the family cannot take such a picture.
    """
    spec = model.pixels
    found = [_size(model, height, width)]
    if spec.fixed_size is not None:
        return tuple(found)
    rows, columns = spec.target_size(height, width)
    pixels = spec.temporal * rows * columns / STEP
    while pixels >= spec.min_pixels:
        smaller = smart_resize(height, width, replace(spec, max_pixels=int(pixels)))
        size = _size(model, *smaller)
        if size.tokens < found[-1].tokens and spec.target_size(*smaller) == smaller:
            found.append(size)
        pixels /= STEP
    return tuple(found)


def _size(model: VisionLanguageModel, height: int, width: int) -> Size:
    rows, columns = model.token_grid(height, width)
    return Size(height, width, rows * columns)


def start_rationing(model: VisionLanguageModel, config: WatchConfig) -> Rationing | None:
    """What a stream's settings ask for; None where nothing is rationed."""
    if config.tokens_per_second is None and config.max_utilisation is None:
        return None
    budget = math.inf if config.tokens_per_second is None else config.tokens_per_second
    terms = Limits(config.fps, config.least_fps, model.pixels.advance, budget, config.max_utilisation)
    return Rationing(model, terms)
