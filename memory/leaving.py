"""Leaving: a block on its way out of the window, whose rotation whoever wants the block undoes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.memory.blocks import About, KVBlock
from streamvlm.memory.slots import Rotary, rotate


@dataclass(frozen=True, slots=True, eq=False)
class Leaving:
    """A copy of what slots held, so that they may be used again; the rest can be done later and on another thread."""

    keys: Tensor  # float [layers, kv_heads, n, head_dim]
    values: Tensor  # float [layers, kv_heads, n, head_dim]
    about: About
    base: int | None  # position to which the block's start is rotated; None: the keys are un-rotated
    rotary: Rotary

    def __len__(self) -> int:
        """Rows (tokens)."""
        return len(self.about)

    @property
    def start(self) -> float:
        """Seconds."""
        return self.about.start

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def block(self) -> KVBlock:
        """The block, un-rotated, on the device of the copy."""
        return settled([self])[0]


@torch.inference_mode()
def settled(blocks: Sequence[Leaving]) -> list[KVBlock]:
    """Blocks of one stream, un-rotated, all at once: of small ones most of the work is the same for many."""
    turned = [(b, b.base) for b in blocks if b.base is not None]
    undone: Iterator[Tensor] = iter(())
    if turned:
        keys = torch.cat([b.keys for b, _ in turned], 2)
        positions = torch.cat([b.about.positions + base for b, base in turned])
        cos, sin = turned[0][0].rotary(positions.to(keys.device))
        undone = iter(torch.split(rotate(keys, cos, -sin), [len(b) for b, _ in turned], 2))
    return [b.about.block(b.keys if b.base is None else next(undone), b.values, -1) for b in blocks]
