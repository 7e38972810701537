"""At most so many tokens of a patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.pruning.dtd import unit
from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.stage import Stateless


@dataclass(frozen=True, slots=True)
class Cap:
    """The highest scores of an earlier stage; without any, the tokens least like their frame's mean.

    What is capped is not noted as kept, so that `dtd` before it brings it again with the next frame: a cut takes as
    many frames to be seen as it has caps of tokens.
    """

    name: ClassVar[str] = "cap"
    paper: ClassVar[str] = "a bound on one frame; as the per-frame budget of STC, arXiv:2512.00891"

    tokens: int  # of a temporal patch

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"cap: tokens must be at least 1, got {self.tokens}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _Capper(self)


class _Capper(Stateless):
    """Keeps the best of every patch."""

    def __init__(self, settings: Cap) -> None:
        self._settings = settings

    def prune(self, block: TokenBlock) -> TokenBlock:
        """At most `tokens` of them."""
        if len(block) <= self._settings.tokens:
            return block
        score = block.score if block.score is not None else untypical(block.tokens.embeds)
        return block.keep(best(score, self._settings.tokens))


def untypical(embeds: Tensor) -> Tensor:
    """float [n]: 1 - cosine of each row with the mean of all."""
    features = unit(embeds)
    mean = unit(features.mean(0, keepdim=True))
    return 1 - (features @ mean.T).squeeze(1)
