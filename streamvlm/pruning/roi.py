"""Region of interest: elsewhere, only large changes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner
from streamvlm.pruning.stage import Stateless


@dataclass(frozen=True, slots=True)
class Roi:
    """After `dtd`: outside a rectangle a token needs a larger difference to be kept; what is due is kept everywhere."""

    name: ClassVar[str] = "roi"
    paper: ClassVar[str] = "after context-aware streaming (Artic), which lowers the bitrate instead"

    top: float = 0.0  # sides of the rectangle as shares of the frame
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0
    outside: float = 0.25  # difference that is kept outside

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"roi: 0 <= top < bottom <= 1 and 0 <= left < right <= 1, got {self}")
        if self.outside < 0:
            raise ValueError(f"roi: outside must be 0 or more, got {self.outside}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _Roi(self)


class _Roi(Stateless):
    def __init__(self, settings: Roi) -> None:
        self._settings = settings

    def prune(self, block: TokenBlock) -> TokenBlock:
        """All inside, and what is worth it outside."""
        if block.score is None:
            raise ValueError("roi: stands after a method that scores tokens by their change, as dtd")
        inside = self.inside(block.tokens.slot, block.patch.grid)
        return block.keep(inside | (block.score >= self._settings.outside))

    def inside(self, slot: Tensor, grid: tuple[int, int]) -> Tensor:
        """bool [n]: places whose middle is in the rectangle."""
        box = self._settings
        y, x = (slot // grid[1] + 0.5) / grid[0], (slot % grid[1] + 0.5) / grid[1]
        within: Tensor = torch.logical_and(y >= box.top, y < box.bottom) & (x >= box.left) & (x < box.right)
        return within
