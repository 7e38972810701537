"""The pixel half of the vision front end: resize, normalise and cut into patches, in torch, on any device.

It stands in for the video processors of transformers, which need torchvision; `tests/test_vision.py` holds it
equal to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """How one model family wants its pixels."""

    patch: int  # pixels on a side
    merge: int  # patches on a side that the projector joins into one token
    temporal: int  # frames in one temporal patch
    mean: tuple[float, ...]  # per RGB channel, in [0, 1]
    std: tuple[float, ...]
    min_pixels: int  # pixels of one temporal patch, all its frames together
    max_pixels: int
    fixed_size: tuple[int, int] | None = None  # (height, width), for towers of one resolution
    overlap: int = 0  # frames that a temporal patch shares with the one before it
    enlarge: bool = True  # first scale up a frame with a side below `factor` (Qwen3-VL; Qwen2.5-VL does not)

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.temporal:
            raise ValueError(f"overlap must be in 0..{self.temporal - 1}, got {self.overlap}")

    @property
    def advance(self) -> int:
        """Frames by which temporal patches follow each other: as many must arrive for the next one."""
        return self.temporal - self.overlap

    @property
    def factor(self) -> int:
        """Both sides of a resized frame are multiples of this many pixels."""
        return self.patch * self.merge

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels a frame of the given size is resized to."""
        if self.fixed_size is not None:
            return self.fixed_size
        return smart_resize(height, width, self)

    def merged_grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of projected tokens for a frame of the given size, before any pooling."""
        rows, columns = self.target_size(height, width)
        return rows // self.factor, columns // self.factor


def smart_resize(height: int, width: int, spec: PixelSpec) -> tuple[int, int]:
    """The Qwen-VL sizing rule for one temporal patch: multiples of `factor`, aspect kept, volume in budget.

    Raises:
        ValueError: a side is not positive, or one is more than 200 times the other.
    """
    if min(height, width) <= 0:
        raise ValueError(f"frame size must be positive, got {height}x{width}")
    size, factor, frames = f"{height}x{width}", spec.factor, spec.temporal
    if spec.enlarge and min(height, width) < factor:
        scale = factor / min(height, width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(f"aspect ratio must be at most {MAX_ASPECT_RATIO}, got a frame of {size}")
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    volume = frames * height * width
    if frames * rows * columns > spec.max_pixels:
        shrink = math.sqrt(volume / spec.max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif frames * rows * columns < spec.min_pixels:
        grow = math.sqrt(spec.min_pixels / volume)
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


FIXED_POINT_BITS = 22  # fraction bits of a tap: 255 taps' worth still fits int32


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


@lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[Tensor, Tensor]:
    """The source pixels each of `target` pixels mixes: indices and fixed-point weights, [k, target] each."""
    scale = source / target
    stretch = max(scale, 1.0)  # antialiasing: a shrinking kernel covers every source pixel
    support = 2.0 * stretch
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    first = (centre - support + 0.5).clamp(min=0).floor().long()
    stop = (centre + support + 0.5).floor().long().clamp(max=source)
    index = first + torch.arange(math.ceil(support) * 2 + 1).unsqueeze(1)
    weight = _cubic((index - centre + 0.5) / stretch).masked_fill(index >= stop, 0)
    fixed = weight / weight.sum(0) * (1 << FIXED_POINT_BITS)
    return index.clamp(max=source - 1), (fixed.abs() + 0.5).floor().mul(fixed.sign()).int()


def _resample(frames: Tensor, target: int) -> Tensor:
    """Resize the last axis of uint8 [..., source] to `target`, in int32 fixed point."""
    source = frames.shape[-1]
    if source == target:
        return frames
    index, weight = (t.to(frames.device) for t in _taps(source, target))
    lines = frames.movedim(-1, 0).int().contiguous()  # [source, ...]: what is picked lies together
    half = 1 << (FIXED_POINT_BITS - 1)  # so that the shift below rounds
    total = torch.full((target, *lines.shape[1:]), half, device=frames.device, dtype=torch.int32)
    for i, w in zip(index, weight, strict=True):
        total.addcmul_(lines.index_select(0, i), w.view(-1, *[1] * (lines.ndim - 1)))
    return (total >> FIXED_POINT_BITS).clamp_(0, 255).to(torch.uint8).movedim(0, -1)


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic resize of uint8 [n, 3, H, W] to `size` (height, width).

    Fixed-point arithmetic, width first, as in Pillow up to 12, so the result is the same to the bit on every device
    and equals the official Pillow processors; torch's own antialiased kernel differs from both by up to two grey
    levels.
    """
    columns = _resample(frames, size[1])
    return _resample(columns.transpose(-1, -2), size[0]).transpose(-1, -2).contiguous()


def normalise(frames: Tensor, spec: PixelSpec) -> Tensor:
    """uint8 [n, 3, H, W] to float32, scaled to [0, 1], mean removed, divided by std."""
    mean = torch.tensor(spec.mean, device=frames.device).view(3, 1, 1)
    std = torch.tensor(spec.std, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def overlapped(frames: Tensor, shared: Tensor, spec: PixelSpec) -> Tensor:
    """Consecutive frames [b·advance, ...] to those of their temporal patches [b·temporal, ...].

    `shared` [overlap, ...] is what the first patch has in common with the one before it.
    """
    assert len(frames) % spec.advance == 0 and len(shared) == spec.overlap
    starts = torch.arange(0, len(frames), spec.advance).unsqueeze(1)
    return torch.cat((shared, frames))[(starts + torch.arange(spec.temporal)).flatten()]


def patchify(frames: Tensor, spec: PixelSpec) -> Tensor:
    """float [n, 3, H, W] to the Qwen-VL patch rows [(n/t)·gh·gw, 3·t·p·p], merged 2x2 neighbours adjacent.

    `n` must be a multiple of the temporal patch, H and W of patch x merge.
    """
    n, channels, height, width = frames.shape
    t, p, m = spec.temporal, spec.patch, spec.merge
    assert n % t == 0 and height % (p * m) == 0 and width % (p * m) == 0
    rows, columns = height // p, width // p
    grid = frames.view(n // t, t, channels, rows // m, m, p, columns // m, m, p)
    return grid.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * t * p * p)
