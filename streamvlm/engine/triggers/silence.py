"""Silence: a model that was trained to say after each frame whether to stay silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger
from streamvlm.errors import ModelError


@dataclass(frozen=True, slots=True)
class Silence(Trigger):
    """Speak unless the token after the newest frame is the silence token; one that is less likely than `threshold`
    does not count (VideoLLM-online, arXiv 2406.11816). Needs a model trained for it; the condition is not asked.
    """

    token: str = ","
    threshold: float = 0.725
    reads: ClassVar[Reads] = "frame"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be in [0, 1]")

    def probability(self, seen: Evidence) -> float:
        assert seen.logits is not None
        ids = seen.model.tokenize(self.token)
        if len(ids) != 1:
            raise ModelError(f"silence token {self.token!r} is {len(ids)} tokens of this model, not one")
        chances = seen.logits.float().softmax(0)
        silent = float(chances[ids[0]])
        likeliest = int(chances.argmax()) == ids[0]
        return 0.0 if likeliest and silent >= self.threshold else 1.0 - silent * (silent >= self.threshold)
