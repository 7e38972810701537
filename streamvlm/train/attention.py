"""Attention for training: matrix products over tiles, each some rows of a packed batch and all that any of them sees.

Episodes lie one after another, without padding. A question does not see the other questions, so most of what a dense
mask would cover is never computed; and unlike the fused kernel with a mask, matrix products use a CPU's bfloat16 units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

ROWS = 256  # of a tile
HIDDEN = -30000.0  # what a score that must not count is lowered by; fits bfloat16
_ROUND = 32  # columns come in multiples of this: matrix products are compiled for each size
_NAME = "streamvlm_tiles"


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Some rows, and the rows that any of them sees."""

    rows: slice  # of the packed batch
    columns: Tensor  # int64 [c] of the packed batch; the last may be there again, unseen, to fill up
    bias: Tensor  # [rows, c] what is added to the scores: nothing, or HIDDEN


def tiles(mask: Tensor, there: Tensor) -> list[Tile]:
    """The tiles of a batch.

    Args:
        mask: bool [b, 1, n, n] which row (third axis) sees which (fourth); every row sees itself.
        there: bool [b, n] the rows that are no padding, which comes last.
    """
    kind = mask.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    found: list[Tile] = []
    base = 0
    for sees, count in zip(mask[:, 0], there.sum(1).tolist(), strict=True):
        for start in range(0, count, ROWS):
            part = sees[start : min(start + ROWS, count), :count]
            columns = part.any(0).nonzero().squeeze(1)
            unseen = torch.zeros(len(part), -len(columns) % _ROUND, dtype=torch.bool, device=part.device)
            shown = torch.cat((part[:, columns], unseen), 1)
            columns = torch.cat((columns, columns[-1:].expand(unseen.shape[1]))) + base
            bias = torch.zeros(shown.shape, dtype=dtype, device=part.device).masked_fill_(~shown, HIDDEN)
            found.append(Tile(slice(base + start, base + start + len(part)), columns, bias))
        base += count
    return found


class _Tiled(torch.autograd.Function):
    """Softmax attention over tiles; query [kv_heads, groups, n, d], already scaled, key and value [kv_heads, n, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Tile]) -> Tensor:  # noqa: ANN401
        out, kept = torch.empty_like(query), []
        for tile in parts:
            rows, keys, values = _flat(query, tile), key[:, tile.columns], value[:, tile.columns]
            scores = rows @ keys.transpose(1, 2)
            scores.view(*query.shape[:2], *tile.bias.shape).add_(tile.bias)
            weights = scores.softmax(-1).to(scores.dtype)  # autocast on CUDA makes it float32
            out[:, :, tile.rows] = (weights @ values).view_as(out[:, :, tile.rows])
            kept += [rows, keys, values, weights]
        ctx.parts, ctx.length = parts, key.shape[1]
        ctx.save_for_backward(out, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        (gradient,) = gradients
        out, *kept = ctx.saved_tensors
        of_query = torch.empty_like(out)
        # Many tiles add to one key: in float32.
        sums = torch.zeros(2, out.shape[0], ctx.length, out.shape[3], device=out.device)
        for i, tile in enumerate(ctx.parts):
            rows, keys, values, weights = kept[4 * i : 4 * i + 4]
            given = _flat(gradient, tile)
            sums[1].index_add_(1, tile.columns, (weights.transpose(1, 2) @ given).float())
            mean = (given * _flat(out, tile)).sum(-1, keepdim=True)
            scores = (given @ values.transpose(1, 2)).sub_(mean).mul_(weights)
            of_query[:, :, tile.rows] = (scores @ keys).view_as(of_query[:, :, tile.rows])
            sums[0].index_add_(1, tile.columns, (scores.transpose(1, 2) @ rows).float())
        return of_query, sums[0].to(out.dtype), sums[1].to(out.dtype), None


def _flat(heads: Tensor, tile: Tile) -> Tensor:
    """[kv_heads, groups · rows, d] a tile's rows of [kv_heads, groups, n, d]."""
    return heads[:, :, tile.rows].flatten(1, 2)


def tiled_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    *,
    tiles: Sequence[Tile],
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Registered with transformers; query [1, heads, n, d], key and value [1, kv_heads, n, d] of a packed batch.

    `tiles` reach it through the model's keyword arguments.
    """
    dtype, (heads, n, d) = tiles[0].bias.dtype, query.shape[1:]
    rows = (query[0] * scaling).to(dtype).view(key.shape[1], -1, n, d)
    out: Tensor = _Tiled.apply(rows, key[0].to(dtype), value[0].to(dtype), tiles)  # type: ignore[no-untyped-call]
    return out.view(1, heads, n, d).transpose(1, 2), None


def register() -> str:
    """Make it known to transformers; returns its name."""
    AttentionInterface.register(_NAME, tiled_attention)
    return _NAME
