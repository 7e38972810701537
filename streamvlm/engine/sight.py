"""Sight: how each block differs from those before it, which costs no pass of the language model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from streamvlm.types import VisionTokens

CHANGED = 0.1  # 1 - cosine of a place that is no longer the same (TimeChat-Online's feature threshold is near it)
FOLLOWING = 0.5  # weight of the newest block in what is expected next


@dataclass(frozen=True, slots=True)
class Change:
    """How a block differs from the one before it."""

    most: float  # 1 - cosine at the place that changed most; 0 to 2
    drop_ratio: float  # share of places that stayed as they were, and might be dropped; 0 to 1
    surprise: float  # mean of (1 - cosine) / 2 to what was expected; 0 to 1


UNKNOWN = Change(2.0, 0.0, 0.0)  # the first block, or one of another size


class Sight:
    """Compares blocks place by place. Places that a pruner left out are as they were."""

    def __init__(self) -> None:
        self._grid: tuple[int, int] | None = None
        self._last = torch.empty(0)  # float32 [places, hidden]
        self._expected = torch.empty(0)

    def see(self, tokens: VisionTokens) -> Change:
        """What changed with this block."""
        embeds = tokens.embeds.float()
        if tokens.grid != self._grid:
            self._grid = tokens.grid
            self._last = embeds.new_zeros(tokens.grid[0] * tokens.grid[1], embeds.shape[1])
            self._put(tokens.slot.to(embeds.device), embeds)
            self._expected = self._last.clone()
            return UNKNOWN
        before, at = self._last, tokens.slot.to(embeds.device)
        self._last = before.clone()
        self._put(at, embeds)
        moved = 1 - cosine_similarity(self._last, before, dim=1)
        error = (1 - cosine_similarity(self._last, self._expected, dim=1)) / 2
        self._expected += FOLLOWING * (self._last - self._expected)
        figures = torch.stack([moved.max(), (moved <= CHANGED).float().mean(), error.mean()])
        most, kept, surprise = figures.tolist()
        return Change(most, kept, surprise)

    def _put(self, at: Tensor, embeds: Tensor) -> None:
        self._last[at] = embeds
