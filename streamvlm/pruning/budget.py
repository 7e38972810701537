"""A budget of tokens a second, held by moving the thresholds of the other stages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from streamvlm.pruning.protocols import Governor, StreamFacts, TokenBlock
from streamvlm.pruning.stage import Stateless

RANGE = 32.0  # how far thresholds may move, up and down


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Holds a rate of tokens: when more come, the threshold of every gate, dtd and roi rises and the share of every
    stc, vidcom2 and dycoke falls, and the other way round when fewer do. What is due again is kept whatever the budget.
    """

    name: ClassVar[str] = "budget"
    paper: ClassVar[str] = "an integral controller"

    rate: float  # vision tokens for each second of stream
    seconds: float = 8.0  # over which the rate is measured, and in which a threshold is moved to where it belongs

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.seconds <= 0:
            raise ValueError(f"budget: rate and seconds must be more than 0, got {self.rate} and {self.seconds}")

    def start(self, facts: StreamFacts) -> Governor:
        """The controller of one stream."""
        return _Controller(self)


class _Controller(Stateless):
    def __init__(self, settings: TokenBudget) -> None:
        self._settings = settings
        self._rate = settings.rate  # tokens a second, lately
        self._log = 0.0  # of the strictness

    def prune(self, block: TokenBlock) -> TokenBlock:
        """Nothing by itself."""
        return block

    def observe(self, kept: int, seconds: float) -> float:
        """What a patch came to; how strict all thresholds are to be from now on."""
        if seconds <= 0:
            return math.exp(self._log)
        part = min(1.0, seconds / self._settings.seconds)
        self._rate += part * (kept / seconds - self._rate)
        error = math.log(max(self._rate, self._settings.rate / RANGE) / self._settings.rate)
        self._log = min(math.log(RANGE), max(-math.log(RANGE), self._log + part * error))
        return math.exp(self._log)
