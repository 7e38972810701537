"""Few frames in full, many pooled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.pruning.dtd import EPSILON, unit
from streamvlm.pruning.protocols import Patch, StreamFacts, TokenBlock, TokenPruner
from streamvlm.pruning.tome import averaged


@dataclass(frozen=True, slots=True)
class Exemplars:
    """Flash-VStream's idea (arXiv:2506.23825) without its training: a frame unlike the last exemplar is kept in full,
    of the others a mean for every `pool` x `pool` places, in the first of them. One exemplar is remembered, no bank.
    """

    name: ClassVar[str] = "exemplars"
    paper: ClassVar[str] = "after Flash-VStream, arXiv:2506.23825"

    tau: float = 0.1  # 1 - cosine of whole frames from which one is an exemplar
    every: float = 8.0  # seconds after which one is in any case
    pool: int = 2  # places on a side

    def __post_init__(self) -> None:
        if self.tau <= 0 or self.every <= 0 or self.pool < 2:
            raise ValueError(f"exemplars: tau and every must be more than 0 and pool at least 2, got {self}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _Exemplars(self)


class _Exemplars:
    def __init__(self, settings: Exemplars) -> None:
        self._settings = settings
        self._exemplar: Tensor | None = None  # float32 [hidden], its mean
        self._at = 0.0  # seconds

    def reset(self) -> None:
        """The next frame is an exemplar."""
        self._exemplar = None

    def prune(self, block: TokenBlock) -> TokenBlock:
        """All of an exemplar; else the means of its cells."""
        if not len(block):
            return block
        mean = unit(block.tokens.embeds.float().mean(0, keepdim=True))[0]
        late = block.patch.pts - self._at >= self._settings.every - EPSILON
        if self._exemplar is None or late or float(1 - mean @ self._exemplar) >= self._settings.tau:
            self._exemplar, self._at = mean, block.patch.pts
            return block
        into = first_of_cell(block.tokens.slot, block.patch, self._settings.pool)
        tokens = block.tokens
        pooled = replace(
            tokens,
            embeds=averaged(tokens.embeds, into),
            deepstack=tuple(averaged(layer, into) for layer in tokens.deepstack),
        )
        return replace(block, tokens=pooled).keep(into == torch.arange(len(into)))

    def note(self, block: TokenBlock) -> None:
        """Exemplars are chosen before others prune."""


def first_of_cell(slot: Tensor, patch: Patch, pool: int) -> Tensor:
    """int64 [n]: for each token the index of the first one that shares its cell."""
    columns = patch.grid[1]
    cell = (slot // columns // pool) * columns + slot % columns // pool
    return (cell.unsqueeze(1) == cell.unsqueeze(0)).int().argmax(1)
