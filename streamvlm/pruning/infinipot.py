"""InfiniPot-V: keep what differs from the frames around it, and large values."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.memory.blocks import KVBlock
from streamvlm.pruning.keynorm import places, unit_keys
from streamvlm.pruning.protocols import KVCompressor, StreamFacts, best


@dataclass(frozen=True, slots=True)
class InfiniPot:
    """InfiniPot-V (arXiv:2506.15745): TaR, keys unlike those in the same place lately, then VaN, large values.

    A row is known by its place on the grid, whatever was left out before; the published code counts rows, and after one
    pass a third of them are where it believes. Keys are un-rotated, so that distance in time is not taken for change.
    The published rule looks back from the end; here a block is compared with those that left before it.
    """

    name: ClassVar[str] = "infinipot"
    paper: ClassVar[str] = "InfiniPot-V, arXiv:2506.15745"

    keep: float = 0.5  # share of a block's vision rows
    tar: float = 0.5  # of them, the share chosen by TaR; the rest by VaN
    recent: int = 8  # blocks that one is compared with

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or not 0 <= self.tar <= 1 or self.recent < 1:
            raise ValueError(f"infinipot: keep in (0, 1], tar in [0, 1] and recent at least 1, got {self}")

    def start(self, facts: StreamFacts) -> KVCompressor:
        """The compressor of one stream."""
        return _InfiniPot(self)


class _InfiniPot:
    def __init__(self, settings: InfiniPot) -> None:
        self._settings = settings
        # Of each block that left: place -> key [layers, kv_heads, head_dim].
        self._recent: deque[dict[tuple[int, int], Tensor]] = deque(maxlen=settings.recent)

    def reset(self) -> None:
        """Forget the blocks that left."""
        self._recent.clear()

    def plan(self, block: KVBlock, vision: Tensor) -> Tensor:
        """Rows by TaR, then by VaN."""
        rows = vision.nonzero().squeeze(1)
        where, keys = places(block), unit_keys(block)
        total = math.ceil(self._settings.keep * len(rows))
        new = torch.tensor([self._novelty(where[i], keys[:, :, i]) for i in rows.tolist()])
        by_tar = best(new, round(self._settings.tar * total))
        large = block.values.float().norm(dim=3).mean((0, 1)).cpu()[rows]
        large[by_tar] = torch.inf
        self._recent.append({where[i]: keys[:, :, i].clone() for i in rows.tolist()})
        kept = ~vision
        kept[rows[best(large, total)]] = True
        return kept

    def _novelty(self, place: tuple[int, int], key: Tensor) -> float:
        """Minus the mean cosine with the keys that recent blocks had in this place; without any, infinite."""
        before = [block[place] for block in self._recent if place in block]
        if not before:
            return math.inf
        return -float((torch.stack(before) * key).sum(-1).mean())
