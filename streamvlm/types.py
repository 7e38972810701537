"""The records that travel down the line. Time is float seconds since stream start; spans are [start, stop)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor


class Kind(IntEnum):
    """What a row of the cache holds."""

    SINK = 0
    VISION = 1
    TEXT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One sampled picture of a stream."""

    data: Tensor  # uint8 [3, H, W], RGB
    pts: float  # seconds since stream start
    duration: float  # seconds until the next sampled frame is due
    captured: float | None = None  # time.monotonic() at which a live or paced frame was taken; None when unpaced
    gap: float = 0.0  # seconds of stream lost just before this frame (reconnects, drops); 0 when none

    def __post_init__(self) -> None:
        if not isinstance(self.data, Tensor) or self.data.dtype != torch.uint8:
            raise ValueError(f"frame data must be a uint8 tensor, got {getattr(self.data, 'dtype', type(self.data))}")
        if self.data.ndim != 3 or self.data.shape[0] != 3:
            raise ValueError(f"frame data must be [3, H, W], got {tuple(self.data.shape)}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.data.shape[1]), int(self.data.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class VisionTokens:
    """One temporal patch (one or two frames) after the vision tower and its projector."""

    embeds: Tensor  # [n, hidden], raster order
    deepstack: tuple[Tensor, ...]  # per injected layer [n, hidden]; () for families without deepstack
    slot: Tensor  # int64 [n], index of each token on the merged grid
    grid: tuple[int, int]  # merged (rows, columns)
    pts: float  # seconds; of the first frame in the patch
    duration: float  # seconds the patch covers

    def __len__(self) -> int:
        return int(self.embeds.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A run of rows ready to prefill: text, or a frame with its delimiters.

    Positions are relative; the writer adds its cursor and then advances it by `extent`.
    """

    embeds: Tensor  # [n, hidden]
    positions: Tensor  # int64 [n, 3] t,h,w relative to the segment's start
    extent: int  # how far it advances the cursor; 0 for a part that does not end a segment
    visual: Tensor  # bool [n], rows that carry projected vision tokens
    deepstack: tuple[Tensor, ...]  # per injected layer [visual.sum(), hidden]
    kind: Kind
    start: float  # seconds
    stop: float  # seconds

    def __len__(self) -> int:
        return int(self.embeds.shape[0])

    def part(self, start: int, stop: int) -> Segment:
        """Rows [start, stop), so that parts written one after the other are the whole. Only the last one advances
        the cursor: positions stay relative to the start of the whole."""
        first, last = int(self.visual[:start].sum()), int(self.visual[:stop].sum())
        return replace(
            self,
            embeds=self.embeds[start:stop],
            positions=self.positions[start:stop],
            extent=self.extent if stop == len(self) else 0,
            visual=self.visual[start:stop],
            deepstack=tuple(layer[first:last] for layer in self.deepstack),
        )
