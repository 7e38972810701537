"""One layer of a vision tower that computes only the rows that changed, and how far a frame may rely on that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(slots=True, eq=False)
class Ledger:
    """What one stream's tower does with the frame at hand; shared by its layers."""

    threshold: float  # cosine of keys below which a row is computed again
    ratio: float | None  # instead, this share of rows with the lowest cosine, as published
    bypass: float  # share of rows that changed in the first layer from which a frame is computed in full
    whole: bool = True  # this frame is computed in full
    rows: int = 0  # of all layers of this frame
    computed: int = 0  # of them

    def begin(self, whole: bool) -> None:
        """A frame comes."""
        self.whole, self.rows, self.computed = whole, 0, 0


@dataclass(slots=True, eq=False)
class Memory:
    """What one layer gave for each row when it was last computed."""

    ledger: Ledger
    first: bool  # of all layers
    keys: Tensor | None = None  # [rows, heads * d], before rotation
    values: Tensor | None = None
    attended: Tensor | None = None  # [rows, width], after the output projection
    mlp: Tensor | None = None
    changed: Tensor = field(default_factory=lambda: torch.empty(0))  # int64 [changed rows] of this frame

    def look(self, keys: Tensor) -> None:
        """Decide which rows to compute."""
        ledger, count = self.ledger, len(keys)
        everything = torch.arange(count, device=keys.device)
        if ledger.whole or self.keys is None or self.keys.shape != keys.shape:
            self.changed = everything
        else:
            like = functional.cosine_similarity(keys.float(), self.keys.float(), dim=1)
            if ledger.ratio is None:
                self.changed = (like < ledger.threshold).nonzero().squeeze(1)
            else:
                self.changed = like.topk(max(1, round(ledger.ratio * count)), largest=False).indices.sort().values
            if self.first and ledger.ratio is None and len(self.changed) >= ledger.bypass * count:
                ledger.whole, self.changed = True, everything
        ledger.rows += count
        ledger.computed += len(self.changed)

    def update(self, name: str, fresh: Tensor) -> Tensor:
        """All rows of `name`, with those that changed replaced by `fresh`."""
        old = getattr(self, name)
        if old is None or len(fresh) == len(old) or self.ledger.whole:
            merged = fresh
        else:
            merged = old.index_copy(0, self.changed, fresh)
        setattr(self, name, merged)
        return merged


class ReusingMlp(nn.Module):
    """The MLP of the rows that its layer's attention found changed."""

    def __init__(self, mlp: nn.Module, memory: Memory) -> None:
        super().__init__()
        self.mlp = mlp
        self._memory = memory

    def forward(self, hidden: Tensor) -> Tensor:
        """[rows, width] or [1, rows, width], normed."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        fresh = self.mlp(flat[self._memory.changed])
        return self._memory.update("mlp", fresh).view(*hidden.shape[:-1], -1)


class ReusingAttention(nn.Module):
    """Attention of changed rows over all rows: new keys everywhere, values where rows changed."""

    def __init__(self, attention: Any, memory: Memory) -> None:  # noqa: ANN401
        super().__init__()
        self.attention = attention
        self._memory = memory

    def project(self, rows: Tensor, which: str) -> Tensor:
        """The q, k or v projection of normed rows [n, width]."""
        raise NotImplementedError

    def attend(self, flat: Tensor, rotation: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        """[rows, width], before the output projection; `mask` bool [rows, rows] where not all see all."""
        memory = self._memory
        keys = self.project(flat, "k")
        memory.look(keys)
        at = memory.changed
        memory.keys = memory.update("keys", keys if memory.ledger.whole else keys[at])
        values = memory.update("values", self.project(flat[at], "v"))
        if not len(at):
            return flat[:0]
        heads, queries = self._heads, self.project(flat[at], "q")
        q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (queries, keys, values))
        if rotation is not None:
            cos, sin = rotation
            q, k = rotated(q, cos[at], sin[at]), rotated(k, cos, sin)
        seen = None if mask is None else mask[at]
        out = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen)[0]
        return out.transpose(0, 1).reshape(len(at), -1)

    @property
    def _heads(self) -> int:
        return int(self.attention.num_heads)


class QwenAttention(ReusingAttention):
    """The fused projections of the Qwen-VL towers, their rotation and their windows."""

    def project(self, rows: Tensor, which: str) -> Tensor:
        """A third of the fused projection."""
        qkv, part = self.attention.qkv, "qkv".index(which)
        width = qkv.weight.shape[0] // 3
        span = slice(part * width, (part + 1) * width)
        return functional.linear(rows, qkv.weight[span], None if qkv.bias is None else qkv.bias[span])

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,  # noqa: ANN401
    ) -> Tensor:
        """As the module it stands for, for one temporal patch."""
        mask = None
        if len(cu_seqlens) > 2:  # windows
            window = torch.bucketize(torch.arange(len(hidden_states), device=cu_seqlens.device), cu_seqlens, right=True)
            mask = window[:, None] == window[None, :]
        fresh = self.attention.proj(self.attend(hidden_states, position_embeddings, mask))
        return self._memory.update("attended", fresh)


class SiglipAttention(ReusingAttention):
    """The separate projections of SigLIP."""

    def project(self, rows: Tensor, which: str) -> Tensor:
        """One of the three."""
        projected: Tensor = getattr(self.attention, f"{which}_proj")(rows)
        return projected

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        """As the module it stands for, for one frame [1, rows, width]."""
        assert hidden_states.shape[0] == 1, "one frame at a time"
        fresh = self.attention.out_proj(self.attend(hidden_states[0], None, None))
        return self._memory.update("attended", fresh)[None], None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rows [heads, n, d] turned by angles [n, d], in float32 as the towers do."""
    first, second = x.float().chunk(2, dim=-1)
    turned = x.float() * cos.float() + torch.cat((-second, first), dim=-1) * sin.float()
    return turned.to(x.dtype)
