"""A camera that is not held still and light that is not steady, for pictures that were rendered with both."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SWAY = 3.0  # pixels at most, of what the model sees
FADE = 0.5  # the least brightness


def sway(frames: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """uint8 [n, 3, side, side] displaced by `x` and `y` pixels [n], edges repeated."""
    side = frames.shape[-1]
    theta = torch.zeros(len(frames), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2], theta[:, 1, 2] = -2 * x / side, -2 * y / side
    grid = affine_grid(theta, list(frames.shape), align_corners=False)
    return grid_sample(frames.float(), grid, padding_mode="border", align_corners=False).round().to(torch.uint8)


def unsteady(pairs: Tensor, seed: int, share: float) -> Tensor:
    """uint8 [n, 2, 3, side, side], a `share` of the pairs swayed and another darkened, each on its own."""
    rng = torch.Generator().manual_seed(seed)
    pairs = pairs.clone()
    moved = torch.rand(len(pairs), generator=rng) < share
    x, y = ((torch.rand(2, int(moved.sum()), generator=rng) * 2 - 1) * SWAY).repeat_interleave(2, dim=1)
    if moved.any():
        pairs[moved] = sway(pairs[moved].flatten(0, 1), x, y).view_as(pairs[moved])
    faded = torch.rand(len(pairs), generator=rng) < share
    light = FADE + (1 - FADE) * torch.rand(int(faded.sum()), 1, 1, 1, 1, generator=rng)
    pairs[faded] = (pairs[faded] * light).round().to(torch.uint8)
    return pairs


def drifting(frames: Tensor, fps: float, rng: random.Random, share: float) -> Tensor:
    """One clip uint8 [n, 3, side, side]: with a chance of `share` each, a camera that sways and light that swells."""
    time = torch.arange(len(frames)) / fps
    if rng.random() < share:
        reach, period, phase = rng.uniform(0.5, SWAY), rng.uniform(8, 20), rng.uniform(0, 2 * math.pi)
        turn = 2 * math.pi * time / period + phase
        frames = sway(frames, reach * turn.sin(), reach * (turn / 1.37).cos())
    if rng.random() < share:
        period, phase = rng.uniform(12, 40), rng.uniform(0, 2 * math.pi)
        light = 1 - (1 - FADE) / 2 * (1 - (2 * math.pi * time / period + phase).cos())
        frames = (frames * light.view(-1, 1, 1, 1)).round().to(torch.uint8)
    return frames
