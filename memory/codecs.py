"""How a block's keys and values become bytes, one equally long run per layer: [layer][K|V][kv_head][token][dim].

`fp16` and `fp32` store them as they are. `int8` stores codes with a minimum and a step: of keys per channel, because
a few channels of some models carry a large constant, and of values per token (KIVI, arXiv 2402.02750). Works on any
device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from streamvlm.memory.blocks import BlockShape

CODECS = ("fp16", "fp32", "int8")
ALIGN = 64  # bytes: every layer starts where any dtype may be viewed
LEVELS = 255
_WIDE = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor inside a layer's bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the layer's start
    by_row: bool = True  # the second axis is the block's rows; else it is one for the whole block

    @property
    def nbytes(self) -> int:
        """Bytes it takes in each layer."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class LayerLayout:
    """Where everything lies in the bytes of one layer of a block."""

    codec: str
    parts: tuple[Part, ...]
    nbytes: int  # a multiple of ALIGN

    @classmethod
    @lru_cache(maxsize=64)  # a stream has few lengths of block, and each is wanted for every block
    def of(cls, codec: str, shape: BlockShape, tokens: int) -> LayerLayout:
        """The layout of a block of `tokens` rows."""
        sizes: list[tuple[str, torch.dtype, tuple[int, ...]]]
        rows, channels = (shape.kv_heads, tokens), (shape.kv_heads, shape.head_dim)
        full = (*rows, shape.head_dim)
        if codec in _WIDE:
            sizes = [("keys", _WIDE[codec], full), ("values", _WIDE[codec], full)]
        elif codec == "int8":
            sizes = [("key_low", torch.float32, channels), ("key_step", torch.float32, channels)]
            sizes += [("value_low", torch.float32, rows), ("value_step", torch.float32, rows)]
            sizes += [("keys", torch.uint8, full), ("values", torch.uint8, full)]
        else:
            raise ValueError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
        parts, offset = [], 0
        for name, dtype, size in sizes:
            parts.append(Part(name, dtype, size, offset, by_row=size is not channels))
            offset += parts[-1].nbytes
        return cls(codec, tuple(parts), -(-offset // ALIGN) * ALIGN)

    def views(self, payload: Tensor) -> dict[str, Tensor]:
        """The parts [layers, ...] inside `payload`, uint8 [layers, nbytes]. Nothing is copied."""
        return {
            part.name: payload[:, part.offset : part.offset + part.nbytes].view(part.dtype).view(-1, *part.shape)
            for part in self.parts
        }


def encode(codec: str, keys: Tensor, values: Tensor) -> Tensor:
    """Bytes uint8 [layers, nbytes] of keys and values [layers, kv_heads, n, head_dim], on their device.

    Values beyond the range of half precision are clamped to it: an infinity would turn a whole answer into NaN.
    """
    layers, kv_heads, tokens, head_dim = keys.shape
    layout = LayerLayout.of(codec, BlockShape(layers, kv_heads, head_dim), tokens)
    payload = torch.zeros(layers, layout.nbytes, dtype=torch.uint8, device=keys.device)
    parts = layout.views(payload)
    if codec == "int8":
        _quantise(keys.float(), 2, "key", parts)
        _quantise(values.float(), 3, "value", parts)
    else:
        parts["keys"].copy_(keys)
        parts["values"].copy_(values)
        largest = torch.finfo(_WIDE[codec]).max
        payload.view(_WIDE[codec]).clamp_(-largest, largest)
    return payload


def decode(layout: LayerLayout, payload: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [layers, kv_heads, n, head_dim] from bytes uint8 [layers, nbytes] of some or all layers.

    fp16 and fp32 are views of `payload`; int8 becomes float32.
    """
    parts = layout.views(payload)
    if layout.codec != "int8":
        return parts["keys"], parts["values"]
    keys = _restore(parts["keys"], parts["key_low"].unsqueeze(2), parts["key_step"].unsqueeze(2))
    values = _restore(parts["values"], parts["value_low"].unsqueeze(3), parts["value_step"].unsqueeze(3))
    return keys, values


def decode_joined(codec: str, parts: Mapping[str, Tensor], tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Keys and values [layers, kv_heads, n, head_dim] of blocks of `tokens` rows, n in all, at once.

    `parts` are as in `LayerLayout.views`, of all blocks end to end; those that a block has one of are
    [layers, kv_heads, blocks, head_dim]. fp16 and fp32 are handed through; int8 becomes float32.
    """
    if codec != "int8":
        return parts["keys"], parts["values"]
    owner = torch.arange(len(tokens)).repeat_interleave(torch.tensor(tokens))
    keys = _restore(parts["keys"], parts["key_low"][:, :, owner], parts["key_step"][:, :, owner])
    values = _restore(parts["values"], parts["value_low"].unsqueeze(3), parts["value_step"].unsqueeze(3))
    return keys, values


def check_finite(layout: LayerLayout, payload: Tensor) -> None:
    """Raise ValueError if the encoded block holds a NaN or an infinity."""
    floats = [part for part in layout.parts if part.dtype.is_floating_point]  # the first ones, all of one dtype
    held = payload[:, : floats[-1].offset + floats[-1].nbytes].view(floats[0].dtype)
    if not all(math.isfinite(bound.item()) for bound in held.aminmax()):
        raise ValueError("the block's keys or values hold NaN or infinity")


def as_bytes(data: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return data.view(-1).numpy().data.cast("B")


def fill(layout: LayerLayout, parts: Mapping[str, Tensor], layers: int) -> Tensor:
    """Bytes uint8 [layers, nbytes] from already encoded parts [layers, ...]."""
    payload = torch.zeros(layers, layout.nbytes, dtype=torch.uint8)
    for name, view in layout.views(payload).items():
        if parts[name].shape != view.shape or parts[name].dtype != view.dtype:
            raise ValueError(f"{name} must be {view.dtype} {tuple(view.shape)}")
        view.copy_(parts[name])
    return payload


def _quantise(x: Tensor, dim: int, name: str, parts: Mapping[str, Tensor]) -> None:
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    step = ((high - low) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)  # a constant channel has no range
    parts[f"{name}_low"].copy_(low.squeeze(dim))
    parts[f"{name}_step"].copy_(step.squeeze(dim))
    parts[f"{name}s"].copy_((x - low).div_(step).round_().clamp_(0, LEVELS))


def _restore(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
    return codes.float().mul_(step).add_(low)
