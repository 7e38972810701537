"""Heads: small classifiers on the language model's state at the newest frame, trained beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from streamvlm.engine.triggers.base import Evidence, Reads, Trigger
from streamvlm.errors import ModelError


@dataclass(slots=True, eq=False)
class Heads(Trigger):
    """The mean of the heads' probabilities: MMDuet's informative and relevance heads (arXiv 2411.17991), or with a
    single one Dispider's decision (arXiv 2501.03218). With `total`, it also speaks when the sum since it last did
    exceeds that (MMDuet's running sum). Needs heads trained for exactly the model they are used with.
    """

    weight: Tensor  # float32 [heads, hidden]
    bias: Tensor  # float32 [heads]
    total: float | None = None
    reads: ClassVar[Reads] = "frame"
    _sum: float = 0.0

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"heads must be [n, hidden] and [n], got {[*self.weight.shape]} and {[*self.bias.shape]}")

    @classmethod
    def load(cls, path: str | Path, *, total: float | None = None) -> Self:
        """Read `weight` and `bias` from a safetensors file.

        Raises:
            ModelError: the file cannot be read or holds something else.
        """
        try:
            found = load_file(path)
            return cls(found["weight"].float(), found["bias"].float(), total)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path} holds no heads (tensors weight [n, hidden] and bias [n]): {error}") from None

    def probability(self, seen: Evidence) -> float:
        assert seen.hidden is not None
        hidden = seen.hidden.float().cpu()
        if hidden.shape[0] != self.weight.shape[1]:
            raise ModelError(f"heads for {self.weight.shape[1]} dimensions, and this model has {hidden.shape[0]}")
        score = float(torch.sigmoid(self.weight @ hidden + self.bias).mean())
        self._sum += score
        if self.total is not None and self._sum > self.total:
            self._sum = 0.0
            return 1.0
        return score
