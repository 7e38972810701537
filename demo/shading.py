"""What a model was shown, for people: its frames with the patches that were left out darkened."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streamvlm import Frame

WIDEST = 640  # pixels
DARK = 0.25  # of a patch that was left out
LINE = 0.6  # of the lines between patches

Picture = NDArray[np.uint8]  # [H, W, 3]


class Recent:
    """The latest frames of a source, small, by their time, until the model has seen them.

    One thread remembers, another takes.
    """

    def __init__(self, most: int) -> None:
        self._pictures: deque[tuple[float, Picture]] = deque(maxlen=most)

    def remember(self, frame: Frame) -> None:
        """Keep a frame; the oldest goes when there are too many."""
        step = -(-max(frame.size) // WIDEST)
        self._pictures.append((frame.pts, frame.data[:, ::step, ::step].permute(1, 2, 0).cpu().numpy().copy()))

    def until(self, pts: float) -> list[tuple[float, Picture]]:
        """The frames up to `pts` that have not been taken yet."""
        taken = []
        while self._pictures and self._pictures[0][0] <= pts + 1e-6:
            taken.append(self._pictures.popleft())
        return taken


def shaded(picture: Picture, grid: tuple[int, int], kept: Iterable[int]) -> Picture:
    """The picture with patches that were left out darkened, and lines around all patches."""
    rows, columns = grid
    height, width = picture.shape[:2]
    light = np.full(rows * columns, DARK)
    light[list(kept)] = 1.0
    y, x = np.arange(height) * rows // height, np.arange(width) * columns // width
    factor = light.reshape(rows, columns)[y][:, x]
    factor[1:][y[1:] != y[:-1]] *= LINE
    factor[:, 1:][:, x[1:] != x[:-1]] *= LINE
    shown: Picture = np.rint(picture * factor[..., None]).astype(np.uint8)
    return shown
