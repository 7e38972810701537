"""Mean keys (ReKV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from streamvlm.retrieval.representatives import Method, by_row


@dataclass(frozen=True, slots=True)
class MeanKey(Method):
    """The mean un-rotated key of each layer and KV head. ReKV (Di et al., ICLR 2025, arXiv 2503.00540).

        v[l] = concat_kv mean_t k[l, kv, t]        s[l] = Σ_h q[l, h] · v[l, kv(h)]

    ReKV stores the key expanded to every query head; the score is the same and needs heads / kv_heads times the bytes.
    It is called a cosine there, but is a plain inner product, as here.
    """

    name: ClassVar[str] = "mean_key"

    def represent(self, keys: Tensor, received: Tensor | None = None) -> Tensor:
        """[layers, 1, kv_heads · head_dim]."""
        return by_row(keys).mean(1, keepdim=True)
