"""LiveVLM: what vision attends to is kept, and every stretch of time keeps something."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.memory.blocks import KVBlock
from streamvlm.pruning.protocols import KVCompressor, StreamFacts

HISTORY = 2048  # scores that say which are high


@dataclass(frozen=True, slots=True)
class LiveVlm:
    """After LiveVLM's vision sink bucketing (arXiv:2505.15269): rows ranked by the attention they draw from the vision
    of their block, and a row of every bucket of time kept however low it ranks.

    Queries are not kept with a block, so keys stand in for them; positions do not matter, for keys are un-rotated.
    """

    name: ClassVar[str] = "livevlm"
    paper: ClassVar[str] = "LiveVLM, arXiv:2505.15269"

    keep: float = 0.5  # share of vision rows, over time
    bucket: float = 2.0  # seconds of which something is always kept

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.bucket <= 0:
            raise ValueError(f"livevlm: keep must be in (0, 1] and bucket more than 0, got {self}")

    def start(self, facts: StreamFacts) -> KVCompressor:
        """The compressor of one stream."""
        return _LiveVlm(self)


class _LiveVlm:
    def __init__(self, settings: LiveVlm) -> None:
        self._settings = settings
        self._scores: deque[float] = deque(maxlen=HISTORY)
        self._bucket: int | None = None  # the latest one that has kept something

    def reset(self) -> None:
        """Forget what scores are usual."""
        self._scores.clear()
        self._bucket = None

    def plan(self, block: KVBlock, vision: Tensor) -> Tensor:
        """Rows whose score is among the highest lately; the best one where a bucket would be left empty."""
        rows = vision.nonzero().squeeze(1)
        kept = ~vision
        if not len(rows):
            return kept
        score = attention_drawn(block.keys[:, :, rows.to(block.keys.device)]).cpu()
        self._scores.extend(score.tolist())
        usual = torch.tensor(self._scores).quantile(1 - self._settings.keep)
        high = score >= usual
        bucket = math.floor(block.start / self._settings.bucket)
        if bucket != self._bucket and not bool(high.any()):
            high[score.argmax()] = True
        if bool(high.any()):
            self._bucket = bucket
        kept[rows[high]] = True
        return kept


def attention_drawn(keys: Tensor) -> Tensor:
    """float [n]: share of attention each row draws from all rows, times their number, over layers and heads."""
    keys = keys.float()
    weights = torch.softmax(keys @ keys.transpose(2, 3) / math.sqrt(keys.shape[3]), dim=3)
    drawn: Tensor = weights.mean((0, 1)).sum(0)
    return drawn
