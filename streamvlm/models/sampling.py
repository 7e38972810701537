"""Choosing the next token, with transformers' own logits processors."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from streamvlm.settings import SamplingConfig


class Sampler:
    """One answer's sampling state: its settings and its own random generator."""

    def __init__(self, config: SamplingConfig, prompt: list[int], eos: Collection[int]) -> None:
        self._seen = list(prompt)
        self._eos = sorted(eos)
        self._shortest = len(prompt) + config.min_new_tokens
        self._greedy = config.temperature == 0
        self._processors = self._build(config)
        self._generator: torch.Generator | None = None
        if not self._greedy:
            self._generator = torch.Generator()
            if config.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(config.seed)

    def _build(self, config: SamplingConfig) -> LogitsProcessorList:
        chain = LogitsProcessorList()
        if config.repetition_penalty != 1.0:  # the processors refuse an int where they expect a float
            chain.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
        if self._greedy:
            return chain
        chain.append(TemperatureLogitsWarper(float(config.temperature)))
        if config.top_k:
            chain.append(TopKLogitsWarper(int(config.top_k)))
        if config.top_p < 1.0:
            chain.append(TopPLogitsWarper(config.top_p))
        if config.min_p > 0.0:
            chain.append(MinPLogitsWarper(config.min_p))
        return chain

    def __call__(self, logits: Tensor) -> int:
        """The next token id for logits [vocabulary]."""
        seen = torch.tensor([self._seen], device=logits.device)
        if len(self._seen) < self._shortest:
            logits = logits.index_fill(0, torch.tensor(self._eos, dtype=torch.int64, device=logits.device), -math.inf)
        scores = self._processors(seen, logits[None])[0]
        if self._greedy:
            token = int(scores.argmax())
        else:
            # Drawn on the CPU so that a seed gives the same answer on every device.
            token = int(torch.multinomial(scores.softmax(-1).cpu(), 1, generator=self._generator))
        self._seen.append(token)
        return token
