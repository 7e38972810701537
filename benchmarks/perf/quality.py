"""How far a question's reading is from what it is without pruning: attention output and logits, not only the answer.

An answer may stay right by luck. What a question's last row gets from attention, and what the model is about to say,
change before the answer does: on a small trained model the error of the former ranks pruners as accuracy does
(Spearman 0.92), while the cosine that is kept ranks them the wrong way round.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One question, as it is about to be answered."""

    attention: Tensor  # float32 [layers, heads * head_dim], what its last row got from attention
    logits: Tensor  # float32 [vocabulary] of the first token


@dataclass(slots=True, eq=False)
class Watcher:
    """Takes a reading of one question at a time; nothing else may be written meanwhile."""

    readings: list[Reading] = field(default_factory=list)
    waiting: bool = False
    _rows: dict[int, Tensor] = field(default_factory=dict)

    def expect(self) -> None:
        """A question is about to be asked."""
        self.waiting = True

    def attended(self, layer: int, packed: Tensor) -> None:
        """A step's attention outputs [1, rows, heads * head_dim]; the question's last row is the last."""
        if self.waiting:
            self._rows[layer] = packed[0, -1].float().cpu()

    def scored(self, logits: Tensor) -> None:
        """A step's logits [choosers, vocabulary]; none until the whole question has been read."""
        if self.waiting and len(logits):
            self.waiting = False
            stacked = torch.stack([self._rows[layer] for layer in sorted(self._rows)])
            self.readings.append(Reading(stacked, logits[-1].float().cpu()))


@contextmanager
def watching(model: Any) -> Iterator[Watcher]:  # noqa: ANN401
    """Listen to a loaded model through torch's forward hooks."""
    watcher = Watcher()
    handles = [model.module.get_output_embeddings().register_forward_hook(lambda _, __, out: watcher.scored(out))]
    for number, layer in enumerate(model.language_model.layers):
        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(_listener(watcher, number)))
    try:
        yield watcher
    finally:
        for handle in handles:
            handle.remove()


def _listener(watcher: Watcher, layer: int) -> Any:  # noqa: ANN401
    def listen(_: object, inputs: tuple[Tensor, ...]) -> None:
        watcher.attended(layer, inputs[0])

    return listen


def attention_error(got: Reading, right: Reading) -> float:
    """Relative error of the attention output, the mean over layers; 0 where nothing differs."""
    return float(((got.attention - right.attention).norm(dim=1) / right.attention.norm(dim=1)).mean())


def divergence(got: Reading, right: Reading) -> float:
    """KL(without pruning || with it) of the first token, in nats."""
    p, q = right.logits.log_softmax(0), got.logits.log_softmax(0)
    return float((p.exp() * (p - q)).sum())


def against(got: Sequence[Reading], right: Sequence[Reading]) -> dict[str, float]:
    """The means over the same questions."""
    pairs = list(zip(got, right, strict=True))
    return {
        "attention_error": round(statistics.mean(attention_error(a, b) for a, b in pairs), 4),
        "logit_kl": round(max(0.0, statistics.mean(divergence(a, b) for a, b in pairs)), 4),
    }
