"""DyCoke's temporal token merging: of four frames, the later ones give only what the earlier ones lack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.pruning.dtd import unit
from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best

GROUP = 4  # frames
COMPARED_WITH = (None, 0, 0, 2)  # frame of the group that each is compared with


@dataclass(frozen=True, slots=True)
class DyCoke:
    """DyCoke-TTM (arXiv:2411.15024) as frames come: the first of four is whole, of the others the least similar.

    Kept tokens stay in raster order and a group that is cut short is pruned like any other; the published code does
    neither. What it does in the language model needs attention weights and is left out.
    """

    name: ClassVar[str] = "dycoke"
    paper: ClassVar[str] = "DyCoke, arXiv:2411.15024"

    keep: float = 0.3  # share of the second to fourth frame

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"dycoke: keep must be in (0, 1], got {self.keep}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _DyCoke(self)


class _DyCoke:
    def __init__(self, settings: DyCoke) -> None:
        self.strictness = 1.0
        self._settings = settings
        self._turn = 0
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}  # frame of the group -> slots, features of length 1

    def reset(self) -> None:
        """A group begins with the next frame."""
        self._turn = 0
        self._seen.clear()

    def prune(self, block: TokenBlock) -> TokenBlock:
        """The whole frame, or those least like the same place in an earlier frame of the group."""
        turn, self._turn = self._turn, (self._turn + 1) % GROUP
        features, slots = unit(block.tokens.embeds), block.tokens.slot
        other = COMPARED_WITH[turn]
        self._seen[turn] = (slots, features)
        if other is None:
            return block
        like = features.new_full((block.patch.full,), -1.0)  # a place the other frame lacks is new
        old_slots, old = self._seen[other]
        table = features.new_zeros(block.patch.full, features.shape[1])
        table[old_slots.to(table.device)] = old
        like[old_slots.to(like.device)] = 0.0
        at = slots.to(table.device)
        score = -((features * table[at]).sum(1) + like[at])
        return block.keep(best(score, math.ceil(self._settings.keep / self.strictness * block.patch.full)))

    def note(self, block: TokenBlock) -> None:
        """Frames are compared whole."""
