"""Token merging: the most similar pairs of a frame become one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.pruning.dtd import unit
from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.stage import Stateless


@dataclass(frozen=True, slots=True)
class ToMe:
    """ToMe (arXiv:2210.09461) after the projector: bipartite matching, pairs averaged, in the place of the second.

    Inside the tower it would destroy the 2x2 cells that the projector joins, so it is not offered there.
    """

    name: ClassVar[str] = "tome"
    paper: ClassVar[str] = "ToMe, arXiv:2210.09461"

    merge: float = 0.5  # share of the tokens that are merged away; at most half of them can be
    least: float = -1.0  # cosine that a pair must have

    def __post_init__(self) -> None:
        if not 0 < self.merge <= 0.5 or not -1 <= self.least < 1:
            raise ValueError(f"tome: merge must be in (0, 0.5] and least in [-1, 1), got {self.merge}, {self.least}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _ToMe(self)


class _ToMe(Stateless):
    def __init__(self, settings: ToMe) -> None:
        self._settings = settings

    def prune(self, block: TokenBlock) -> TokenBlock:
        """Every second token may be merged into its best match among the others."""
        count = len(block)
        if count < 2:
            return block
        features = unit(block.tokens.embeds)
        like, partner = (features[::2] @ features[1::2].T).max(1)
        chosen = best(like, int(self._settings.merge * count)) & (like >= self._settings.least).cpu()
        sources = chosen.nonzero().squeeze(1) * 2
        into = torch.arange(count)
        into[sources] = partner.cpu()[chosen] * 2 + 1
        tokens = block.tokens
        merged = replace(
            tokens,
            embeds=averaged(tokens.embeds, into),
            deepstack=tuple(averaged(layer, into) for layer in tokens.deepstack),
        )
        survives = torch.ones(count, dtype=torch.bool)
        survives[sources] = False
        return replace(block, tokens=merged).keep(survives)


def averaged(rows: Tensor, into: Tensor) -> Tensor:
    """Each row of [n, d] replaced by the mean of all that go `into` it, int64 [n]; others are left as they are."""
    at = into.to(rows.device)
    total = torch.zeros_like(rows, dtype=torch.float32).index_add_(0, at, rows.float())
    size = torch.zeros(len(rows), device=rows.device).index_add_(0, at, torch.ones(len(rows), device=rows.device))
    return torch.where(size[:, None] > 0, total / size[:, None].clamp(min=1), rows.float()).to(rows.dtype)
