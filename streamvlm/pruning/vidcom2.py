"""VidCom2: a frame unlike the others may keep more."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.typical import Past


@dataclass(frozen=True, slots=True)
class VidCom2:
    """VidCom2 (arXiv:2505.14454) made causal: tokens ranked as in STC, more of them from frames unlike the latest ones.

    The published method compares with the mean of the whole video, which a stream does not have yet.
    """

    name: ClassVar[str] = "vidcom2"
    paper: ClassVar[str] = "VidCom2, arXiv:2505.14454"

    keep: float = 0.25  # share of tokens on average
    temperature: float = 0.01  # how sharply frames unlike the others are preferred
    history: int = 64  # frames that one is compared with

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.temperature <= 0 or self.history < 1:
            raise ValueError(f"vidcom2: keep must be in (0, 1], temperature and history positive, got {self}")

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _VidCom2(self)


class _VidCom2:
    def __init__(self, settings: VidCom2) -> None:
        self.strictness = 1.0
        self._settings = settings
        self._past = Past()
        self._unlike: deque[float] = deque(maxlen=settings.history)

    def reset(self) -> None:
        """Forget the past."""
        self._past.reset()
        self._unlike.clear()

    def prune(self, block: TokenBlock) -> TokenBlock:
        """The least typical, as many as the frame's own unlikeness grants."""
        if not len(block):
            return block
        score = -self._past.typicality(block.tokens.embeds)
        self._unlike.append(float(score.mean()))
        shares = torch.softmax(torch.tensor(self._unlike) / self._settings.temperature, 0)
        grant = self._settings.keep / self.strictness * (1 + float(shares[-1]) - 1 / len(shares))
        return block.keep(best(score, math.ceil(min(1.0, grant) * block.patch.full)))

    def note(self, block: TokenBlock) -> None:
        """The past is of all tokens, kept or not."""
