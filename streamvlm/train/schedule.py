"""The learning rate over the steps of a stage."""

from __future__ import annotations

import math


def warm_cosine(index: int, lr: float, warmup: int, span: int, final: float) -> float:
    """Linear warm-up over `warmup` steps, then a cosine that reaches `final` x `lr` at step `span`."""
    if index < warmup:
        return lr * (index + 1) / warmup
    done = (index - warmup) / max(1, span - warmup)
    return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
