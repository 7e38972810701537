"""KVBlock: the keys and values of one temporal patch or run of text, as they leave the window and come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.types import Kind


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What is the same for every block of a model."""

    layers: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class About:
    """Everything about a block but its keys and values."""

    positions: Tensor  # int64 [n, 3] t,h,w relative to the block's start
    extent: int
    kind: Kind
    start: float  # seconds
    stop: float
    text: str = ""
    stream: str = ""
    thumbnail: bytes = b""

    def __len__(self) -> int:
        """Rows (tokens)."""
        return int(self.positions.shape[0])

    def block(self, keys: Tensor, values: Tensor, block_id: int) -> KVBlock:
        """The block with these keys and values."""
        return KVBlock(
            keys,
            values,
            self.positions,
            self.extent,
            self.kind,
            self.start,
            self.stop,
            self.text,
            self.stream,
            self.thumbnail,
            block_id,
        )


@dataclass(frozen=True, slots=True, eq=False)
class KVBlock:
    """Keys and values of some rows, independent of where they stood in the stream's positions."""

    keys: Tensor  # float [layers, kv_heads, n, head_dim], un-rotated
    values: Tensor  # float [layers, kv_heads, n, head_dim]
    positions: Tensor  # int64 [n, 3] t,h,w relative to the block's start
    extent: int  # how far the block advances the cursor
    kind: Kind
    start: float  # seconds
    stop: float
    text: str = ""
    stream: str = ""
    thumbnail: bytes = b""  # an encoded picture to show as evidence
    id: int = -1  # -1 until it has been stored

    def __post_init__(self) -> None:
        if self.keys.ndim != 4 or self.keys.shape != self.values.shape:
            raise ValueError(
                f"keys and values must both be [layers, kv_heads, n, head_dim], "
                f"got {tuple(self.keys.shape)} and {tuple(self.values.shape)}"
            )
        if self.positions.shape != (len(self), 3) or self.positions.dtype != torch.int64:
            raise ValueError(
                f"positions must be int64 [{len(self)}, 3], got {self.positions.dtype} {tuple(self.positions.shape)}"
            )
        if not (math.isfinite(self.start) and math.isfinite(self.stop) and self.start <= self.stop):
            raise ValueError(f"a block must span finite seconds start <= stop, got {self.start} to {self.stop}")
        if len(self) < 1 or self.extent < 0:
            raise ValueError(f"a block needs a row and an extent of 0 or more, got {len(self)} and {self.extent}")

    def __len__(self) -> int:
        """Rows (tokens)."""
        return int(self.keys.shape[2])

    @property
    def shape(self) -> BlockShape:
        """Layers, heads and dimension of this block."""
        layers, kv_heads, _, head_dim = self.keys.shape
        return BlockShape(layers, kv_heads, head_dim)

    @property
    def about(self) -> About:
        """Everything but keys and values, on the CPU."""
        return About(
            self.positions.cpu(),
            self.extent,
            self.kind,
            self.start,
            self.stop,
            self.text,
            self.stream,
            self.thumbnail,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class BlockRun:
    """Blocks end to end, as they are placed in a reader's slots."""

    keys: Tensor  # float [layers, kv_heads, n, head_dim], un-rotated
    values: Tensor  # float [layers, kv_heads, n, head_dim]
    positions: Tensor  # int64 [n, 3] t,h,w relative to the run's start
    extent: int  # how far all of them advance the cursor

    def __post_init__(self) -> None:
        if self.positions.shape != (len(self), 3) or len(self) < 1:
            raise ValueError(f"positions must be [{len(self)}, 3] of at least one row, got {self.positions.shape}")

    def __len__(self) -> int:
        """Rows (tokens)."""
        return int(self.keys.shape[2])

    @classmethod
    def of(cls, blocks: Sequence[KVBlock]) -> BlockRun:
        """These blocks, each right after the one before it."""
        keys, values = (torch.cat(parts, 2) for parts in zip(*((b.keys, b.values) for b in blocks), strict=True))
        extents = [block.extent for block in blocks]
        positions = torch.cat([block.positions for block in blocks])
        return cls(keys, values, following(positions, [len(block) for block in blocks], extents), sum(extents))


def following(positions: Tensor, rows: Sequence[int], extents: Sequence[int]) -> Tensor:
    """Positions int64 [n, 3] of blocks of so many `rows`, relative to the start of the first instead of their own."""
    starts = torch.tensor([0, *extents[:-1]]).cumsum(0)
    return positions + starts.repeat_interleave(torch.tensor(rows)).unsqueeze(1)
