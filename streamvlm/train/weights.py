"""Weights of the losses that help the embedded model learn and whose heads are thrown away afterwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Relative to the loss of the answers; 0 leaves one out."""

    naming: float = 0.0  # vision tokens name what they cover and what they covered a frame ago
    pointing: float = 0.0  # questions point at the frames that show the answer
    telling: float = 0.0  # frames tell what is happening in them

    def __post_init__(self) -> None:
        if min(self.naming, self.pointing, self.telling) < 0:
            raise ValueError(f"weights of losses must not be negative, got {self}")
