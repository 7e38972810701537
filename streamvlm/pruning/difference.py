"""How much a picture differs from what was last kept of each token, in pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from streamvlm.pruning.steady import Steady, beyond_edge

DETAIL = 16  # pixels on a side that one token is reduced to before it is compared


def reduced(frames: Tensor, grid: tuple[int, int], device: torch.device) -> Tensor:
    """uint8 [t, 3, H, W] to float32 [t, 3, rows * DETAIL, columns * DETAIL] in [0, 1], by area."""
    size = (grid[0] * DETAIL, grid[1] * DETAIL)
    pixels = frames.to(device).float() / 255
    return pixels if pixels.shape[2:] == size else functional.interpolate(pixels, size, mode="area")


def distance(frames: Tensor, reference: Tensor, *, slack: int, peak: int, steady: Steady | None = None) -> Tensor:
    """float [rows * columns]: the worst part of each token in any of the frames.

    Args:
        frames: float [t, 3, h, w] from `reduced`.
        reference: float [3, h, w].
        slack: a pixel counts as unchanged where the reference has its value within so many reduced pixels, so that a
            swaying edge is no change. 0 compares pixel with pixel.
        peak: side of the parts in reduced pixels; the mean over a part is compared. DETAIL takes a token as one part.
        steady: what is put down to the camera first; None: nothing.
    """
    side = 2 * slack + 1
    worst = []
    if steady is not None and steady.reach:
        frames, reference = blurred(frames), blurred(reference[None])[0]
    for frame in frames:
        seen, down, right = (reference, 0, 0) if steady is None else steady.match(reference, frame)
        high = functional.max_pool2d(seen[None], side, 1, slack)[0]
        low = -functional.max_pool2d(-seen[None], side, 1, slack)[0]
        beyond = (frame - high).clamp(min=0) + (low - frame).clamp(min=0)
        parts = functional.avg_pool2d(beyond_edge(beyond, down, right).mean(0)[None, None], peak)
        worst.append(functional.max_pool2d(parts, DETAIL // peak).flatten())
    return torch.stack(worst).amax(0)


def blurred(frames: Tensor) -> Tensor:
    """float [t, 3, h, w], each pixel the mean of 3 x 3: a line that moved by part of a pixel is as bright as it was."""
    return functional.avg_pool2d(frames, 3, 1, 1, count_include_pad=False)


def spread(chosen: Tensor, grid: tuple[int, int]) -> Tensor:
    """bool [rows * columns] to the reduced pixels, bool [h, w]."""
    return chosen.view(grid).repeat_interleave(DETAIL, 0).repeat_interleave(DETAIL, 1)
