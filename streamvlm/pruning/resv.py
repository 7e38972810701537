"""ReSV: rows whose keys fall into a cluster that is there already are left out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.memory.blocks import KVBlock
from streamvlm.pruning.protocols import KVCompressor, StreamFacts


@dataclass(frozen=True, slots=True)
class ReSv:
    """After V-Rex's ReSV (arXiv:2512.12284): keys are hashed to signs; a row few bits from a kept one is like it.

    The published method retrieves by cluster on hardware of its own; here a cluster's first row stands for the rest.
    """

    name: ClassVar[str] = "resv"
    paper: ClassVar[str] = "V-Rex, arXiv:2512.12284"

    bits: int = 64  # of a hash
    apart: int = 4  # bits from which rows are of different clusters
    clusters: int = 2048  # remembered, the latest

    def __post_init__(self) -> None:
        if not 1 <= self.apart <= self.bits or self.clusters < 1:
            raise ValueError(f"resv: 1 <= apart <= bits and clusters at least 1, got {self}")

    def start(self, facts: StreamFacts) -> KVCompressor:
        """The compressor of one stream."""
        return _ReSv(self)


class _ReSv:
    def __init__(self, settings: ReSv) -> None:
        self._settings = settings
        self._planes: Tensor | None = None  # float32 [layers * heads * d, bits], the same for every stream
        self._known: deque[Tensor] = deque(maxlen=settings.clusters)  # bool [bits] each

    def reset(self) -> None:
        """Forget all clusters."""
        self._known.clear()

    def plan(self, block: KVBlock, vision: Tensor) -> Tensor:
        """The first row of every cluster."""
        kept = ~vision
        for row, signs in zip(vision.nonzero().squeeze(1).tolist(), self._hash(block, vision), strict=True):
            if self._new(signs):
                self._known.append(signs)
                kept[row] = True
        return kept

    def _new(self, signs: Tensor) -> bool:
        if not self._known:
            return True
        return int((torch.stack(list(self._known)) != signs).sum(1).min()) >= self._settings.apart

    def _hash(self, block: KVBlock, vision: Tensor) -> Tensor:
        """bool [vision rows, bits]: on which side of random planes the keys of all layers and heads lie."""
        keys = block.keys.float().permute(2, 0, 1, 3).flatten(1).cpu()[vision]
        if self._planes is None:
            generator = torch.Generator().manual_seed(0)
            self._planes = torch.randn(keys.shape[1], self._settings.bits, generator=generator)
        return keys @ self._planes > 0
