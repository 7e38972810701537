"""Attention for training: on a CPU, plain matrix products over chunks of rows, each up to its last visible column.

Packed sequences are causal in the order of their rows, so that a chunk never needs the columns after it. On CPUs with
bfloat16 matrix units this is about twice as fast as the fused kernel with a mask, whose time is most of a step's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

CHUNK = 256  # rows
HIDDEN = -30000.0  # what a score that must not count is lowered by; fits bfloat16
_NAME = "streamvlm_chunks"


def bias(mask: Tensor) -> Tensor:
    """bool [b, 1, n, n] as what is added to the scores, in the precision that these will have."""
    kind = mask.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, HIDDEN)


def chunked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Registered with transformers; query [b, heads, n, d], key and value [b, kv_heads, n, d], mask a causal bias."""
    groups = query.shape[1] // key.shape[1]
    if query.is_cuda:
        out = scaled_dot_product_attention(
            query, key, value, attention_mask.to(query.dtype), scale=scaling, enable_gqa=groups > 1
        )
        return out.transpose(1, 2), None
    b, heads, n, d = query.shape
    query = (query * scaling).view(b, key.shape[1], groups, n, d)
    key, parts = key.transpose(2, 3), []
    for start in range(0, n, CHUNK):
        stop = min(n, start + CHUNK)
        rows = query[:, :, :, start:stop].reshape(b, -1, groups * (stop - start), d)
        scores = (rows @ key[..., :stop]).view(b, -1, groups, stop - start, stop)
        weights = (scores + attention_mask[:, :, None, start:stop, :stop].to(scores.dtype)).softmax(-1)
        mixed = weights.view(b, -1, groups * (stop - start), stop) @ value[:, :, :stop]
        parts.append(mixed.view(b, heads, stop - start, d))
    return torch.cat(parts, 2).transpose(1, 2), None


def register() -> str:
    """Make it known to transformers; returns its name."""
    AttentionInterface.register(_NAME, chunked_attention)
    return _NAME
