"""How much a picture differs from what was last kept of each token, in pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

DETAIL = 16  # pixels on a side that one token is reduced to before it is compared


def reduced(frames: Tensor, grid: tuple[int, int], device: torch.device) -> Tensor:
    """uint8 [t, 3, H, W] to float32 [t, 3, rows * DETAIL, columns * DETAIL] in [0, 1], by area."""
    size = (grid[0] * DETAIL, grid[1] * DETAIL)
    pixels = frames.to(device).float() / 255
    return pixels if pixels.shape[2:] == size else functional.interpolate(pixels, size, mode="area")


def distance(frames: Tensor, reference: Tensor, *, slack: int, peak: int) -> Tensor:
    """float [rows * columns]: the worst part of each token in any of the frames.

    Args:
        frames: float [t, 3, h, w] from `reduced`.
        reference: float [3, h, w].
        slack: a pixel counts as unchanged where the reference has its value within so many reduced pixels, so that a
            swaying edge is no change. 0 compares pixel with pixel.
        peak: side of the parts in reduced pixels; the mean over a part is compared. DETAIL takes a token as one part.
    """
    side = 2 * slack + 1
    high = functional.max_pool2d(reference[None], side, 1, slack)
    low = -functional.max_pool2d(-reference[None], side, 1, slack)
    beyond = (frames - high).clamp(min=0) + (low - frames).clamp(min=0)
    parts = functional.avg_pool2d(beyond.mean(1, keepdim=True), peak)
    return functional.max_pool2d(parts, DETAIL // peak).amax(0).flatten()


def spread(chosen: Tensor, grid: tuple[int, int]) -> Tensor:
    """bool [rows * columns] to the reduced pixels, bool [h, w]."""
    return chosen.view(grid).repeat_interleave(DETAIL, 0).repeat_interleave(DETAIL, 1)
