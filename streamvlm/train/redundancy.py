"""Which vision tokens a pruner would drop, so that the model learns to read a window in which most are missing.

The rule is that of dropping tokens that look like the last kept token of their place (TimeChat-Online's DTD,
arXiv:2504.17343, against the last kept instead of the previous frame), tolerant to a shift of one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.pruning.difference import DETAIL, distance, reduced, spread


@dataclass(frozen=True, slots=True)
class Dropping:
    """How much may go."""

    tau: float = 0.04  # mean change of brightness, 0..1, from which a token is kept
    refresh: int = 24  # frames after which a place is kept whatever it shows
    cap: int = 16  # tokens kept of one frame at most


def keep_mask(frames: Tensor, rule: Dropping) -> Tensor:
    """bool [n, tokens], for uint8 [n, 3, side, side]; the first frame is kept whole."""
    grid = (frames.shape[-1] // DETAIL,) * 2
    seen = reduced(frames, grid, frames.device)
    keep = torch.zeros(len(seen), grid[0] * grid[1], dtype=torch.bool)
    keep[0] = True
    last, age = seen[0], torch.zeros(keep.shape[1], dtype=torch.int64)
    for index in range(1, len(seen)):
        change = distance(seen[index : index + 1], last, slack=1, peak=2)
        age += 1
        kept = (change >= rule.tau) | (age >= rule.refresh)
        if int(kept.sum()) > rule.cap:
            order = torch.where(kept, change + (age >= rule.refresh), -1.0)
            kept = torch.zeros_like(kept).index_fill_(0, order.topk(rule.cap).indices, True)
        keep[index] = kept
        age[kept] = 0
        last = torch.where(spread(kept, grid), seen[index], last)
    return keep
