"""VideoScan's carriers: one row stands for a whole frame. For models trained for it only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from streamvlm.errors import ModelError
from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.stage import Stateless

TRAINED = "carrier_tokens"  # true in the config of a checkpoint that was trained to read them


@dataclass(frozen=True, slots=True)
class Carriers:
    """VideoScan (arXiv:2503.09387): a frame's mean in its last place, and nothing else of it.

    Worthless without its training, so it refuses a checkpoint whose config does not say `carrier_tokens: true`. The
    published carrier is computed after its frame's tokens, which are then forgotten; here they are not prefilled.
    """

    name: ClassVar[str] = "carriers"
    paper: ClassVar[str] = "VideoScan, arXiv:2503.09387"

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream.

        Raises:
            ModelError: the model was not trained to read carriers.
        """
        if not getattr(facts.model.module.config, TRAINED, False):
            raise ModelError(f"carriers: this model was not trained to read them (its config has no {TRAINED}: true)")
        return _Carriers()


class _Carriers(Stateless):
    def prune(self, block: TokenBlock) -> TokenBlock:
        """The mean of a frame."""
        if not len(block):
            return block
        tokens = block.tokens
        means = replace(
            tokens,
            embeds=tokens.embeds.mean(0, keepdim=True).expand_as(tokens.embeds),
            deepstack=tuple(layer.mean(0, keepdim=True).expand_as(layer) for layer in tokens.deepstack),
        )
        return replace(block, tokens=means).keep(best(tokens.slot.float(), 1))
