"""What a composition has saved, in frames, tokens and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from streamvlm.models.base import VisionLanguageModel


@dataclass(frozen=True, slots=True)
class Savings:
    """Counts that add up."""

    patches: int = 0  # temporal patches seen
    unchanged: int = 0  # of them, those that left no token and cost no step
    tower_skipped: float = 0.0  # of them, vision towers not run, in whole towers
    tokens: int = 0  # vision tokens the patches have
    pruned: int = 0  # of them, those not prefilled
    compressed: int = 0  # rows left out on the way from the window to the store
    tower_flops: float = 0.0  # not spent in the vision tower; 2 operations for each parameter and patch row
    prefill_flops: float = 0.0  # not spent in the language model; 2 for each parameter and token, attention not counted
    looked: int = 0  # rows that it took to know what matters, taken off the above

    def __add__(self, other: Savings) -> Savings:
        return Savings(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def kept(self) -> float:
        """Share of vision tokens that were prefilled; 1 before the first."""
        return 1.0 if self.tokens == 0 else 1 - self.pruned / self.tokens


NOTHING_SAVED = Savings()


@dataclass(frozen=True, slots=True)
class Prices:
    """Floating-point operations of a model."""

    tower_row: float  # of one row of patches in the vision tower
    rows_per_token: int
    token: float  # of one token in the language model's layers

    @classmethod
    def of(cls, model: VisionLanguageModel) -> Prices:
        """Two operations for each parameter that a row meets."""
        inner = model.module.model
        tower = getattr(inner, "visual", None) or inner.vision_tower
        return cls(2 * _weights(tower), model.pixels.merge**2, 2 * _weights(model.language_model.layers))

    def tower(self, tokens: int) -> float:
        """Of a patch with so many tokens."""
        return self.tower_row * self.rows_per_token * tokens


def _weights(module: Any) -> float:  # noqa: ANN401
    parameters: list[Tensor] = list(module.parameters())
    return float(sum(p.numel() for p in parameters))
