"""Which vision tokens a pruner would drop, so that the model learns to read a window in which most are missing.

The rule is that of dropping tokens that look like the last kept token of their place (TimeChat-Online's DTD,
arXiv:2504.17343, against the last kept instead of the previous frame), tolerant to a shift of one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

PATCH = 16  # pixels, side of what one merged token covers


@dataclass(frozen=True, slots=True)
class Dropping:
    """How much may go."""

    tau: float = 0.04  # mean change of brightness, 0..1, from which a token is kept
    refresh: int = 24  # frames after which a place is kept whatever it shows
    cap: int = 16  # tokens kept of one frame at most


def keep_mask(frames: Tensor, rule: Dropping) -> Tensor:
    """bool [n, tokens], for uint8 [n, 3, side, side]; the first frame is kept whole."""
    seen = frames.float() / 255
    side = frames.shape[-1] // PATCH
    keep = torch.zeros(len(seen), side * side, dtype=torch.bool)
    keep[0] = True
    last, age = seen[0].clone(), torch.zeros(side * side, dtype=torch.int64)
    for index in range(1, len(seen)):
        change = _change(seen[index], last)
        age += 1
        kept = (change >= rule.tau) | (age >= rule.refresh)
        if int(kept.sum()) > rule.cap:
            order = torch.where(kept, change + (age >= rule.refresh), -1.0)
            kept = torch.zeros_like(kept).index_fill_(0, order.topk(rule.cap).indices, True)
        keep[index] = kept
        age[kept] = 0
        pixels = kept.view(side, side).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
        last = torch.where(pixels, seen[index], last)
    return keep


def _change(new: Tensor, old: Tensor) -> Tensor:
    """[tokens] how much the most changed quarter of each place's quarter differs from anything a pixel away."""
    high, low = max_pool2d(old[None], 3, 1, 1)[0], -max_pool2d(-old[None], 3, 1, 1)[0]
    difference = ((new - high).clamp(min=0) + (low - new).clamp(min=0)).mean(0)
    return max_pool2d(avg_pool2d(difference[None, None], 2), PATCH // 2).flatten()
