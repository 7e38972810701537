"""What lies in slots: the rows of a step, rows from elsewhere, a reader's, and those that have died."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class ReaderState:
    """A live reader: the epoch it sees and where its next row goes."""

    epoch: int
    cursor: int  # next rotary position
    begun: int  # where its first row went or will go
    slots: list[Tensor] = field(default_factory=list)  # its private slots
    hidden: Tensor | None = None  # int64 shared slots of its snapshot of which it has versions of its own
    absent: dict[int, Tensor] = field(default_factory=dict)  # by layer, int64 private slots that hold nothing there


@dataclass(frozen=True, slots=True, eq=False)
class LayerRows:
    """Rows from elsewhere for one layer."""

    keys: Tensor  # [kv_heads, n, head_dim], un-rotated
    values: Tensor  # [kv_heads, n, head_dim]
    positions: Tensor  # int64 [n, 3] absolute


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows given slots for the coming step."""

    slots: Tensor  # int64 [n]
    positions: Tensor  # int64 [n, 3] absolute
    reader: int  # SHARED, or the reader the rows are private to
    epoch: int  # what they may see of the shared slots
    order: Tensor  # int64 [n]


@dataclass(frozen=True, slots=True, eq=False)
class DeadSlots:
    """Evicted shared slots that a live reader may still see."""

    slots: Tensor  # int64 [n]
    birth: int
    death: int
