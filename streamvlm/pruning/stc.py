"""STC-Pruner: drops what is typical of the frame and of the past."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.typical import Past


@dataclass(frozen=True, slots=True)
class Stc:
    """STC-Pruner (arXiv:2512.00891): keeps the tokens least like their frame's mean and the mean of the past.

    The channels it compares are chosen once; the published code chooses them anew for every chunk and then averages
    columns that mean different things. The past is one vector and is forgotten with the stream.
    """

    name: ClassVar[str] = "stc"
    paper: ClassVar[str] = "STC, arXiv:2512.00891"

    keep: float = 0.3  # share of a full patch; published 60 of 196

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"stc: keep must be in (0, 1], got {self.keep}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _Stc(self)


class _Stc:
    def __init__(self, settings: Stc) -> None:
        self.strictness = 1.0
        self._settings = settings
        self._past = Past()

    def reset(self) -> None:
        """Forget the past."""
        self._past.reset()

    def prune(self, block: TokenBlock) -> TokenBlock:
        """The least typical of a patch."""
        if not len(block):
            return block
        score = -self._past.typicality(block.tokens.embeds)
        return block.keep(best(score, math.ceil(self._settings.keep / self.strictness * block.patch.full)))

    def note(self, block: TokenBlock) -> None:
        """The past is of all tokens, kept or not."""
