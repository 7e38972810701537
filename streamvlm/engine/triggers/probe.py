"""Probe: ask the model whether the condition holds and compare two tokens; nothing is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm import prompts
from streamvlm.engine.triggers.base import Evidence, Reads, Trigger
from streamvlm.models.base import VisionLanguageModel


@dataclass(frozen=True, slots=True)
class Probe(Trigger):
    """Log-odds of YES against NO as the next token after `prompts.watch_probe`, in any of their spellings.

    `bias` and `temperature` calibrate them for a model: probability = sigmoid((log-odds - bias) / temperature).
    """

    bias: float = 0.0
    temperature: float = 1.0
    reads: ClassVar[Reads] = "answer"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be greater than 0")

    def question(self, condition: str) -> str:
        return prompts.watch_probe(condition)

    def probability(self, seen: Evidence) -> float:
        assert seen.logits is not None
        yes, no = first_tokens(seen.model, prompts.YES), first_tokens(seen.model, prompts.NO)
        logits = seen.logits.float()
        odds = torch.logsumexp(logits[sorted(yes - no)], 0) - torch.logsumexp(logits[sorted(no - yes)], 0)
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, (float(odds) - self.bias) / self.temperature))))


def first_tokens(model: VisionLanguageModel, word: str) -> set[int]:
    """The tokens that `word` may begin with."""
    spellings = (word, word.capitalize(), word.upper())
    return {ids[0] for spelling in spellings for text in (spelling, f" {spelling}") if (ids := model.tokenize(text))}
