"""What the vision tower makes of frames, remembered for as long as it does not learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_STRIDES = 5  # a frame is seen with itself, or with one of up to four before it
_AT_ONCE = 32  # pictures in a call, always: so that what comes out does not depend on what else is missing
_MOST = 3 << 30  # bytes that are kept


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Projected vision tokens of some frames."""

    embeds: Tensor  # [frames, tokens, hidden]
    deepstack: tuple[Tensor, ...]  # [frames, tokens, hidden] each


class Gallery:
    """The features of one set of clips. Whoever would keep more than `most` bytes starts over."""

    def __init__(self, frames: Tensor, most: int = _MOST) -> None:
        self._frames = frames  # uint8 [clips, frames, 3, side, side]
        self._most = most
        self._where = torch.full((frames.shape[0] * frames.shape[1] * _STRIDES,), -1)
        self._store = torch.empty(0)  # [n, 1 + deepstack layers, tokens, hidden]
        self._kept = 0

    @torch.no_grad()
    def features(self, see: Callable[[Tensor], Features], clip: Tensor, frame: Tensor, before: Tensor) -> Features:
        """Of frames of clips, each seen after another of the same clip: int64 [n] each, on the CPU.

        Args:
            see: the tower, on uint8 [m, 2, 3, side, side].
        """
        stride = frame - before
        assert bool(((stride >= 0) & (stride < _STRIDES)).all()), "a frame follows one of its own clip, closely"
        keys = (clip * self._frames.shape[1] + frame) * _STRIDES + stride
        missing = torch.unique(keys[self._where[keys] < 0])
        if self._kept and self._kept + len(missing) > len(self._store):
            self.forget()
            missing = torch.unique(keys)
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            self._keep(some, self._made(see, some))
        embeds, *deepstack = self._store[self._where[keys]].unbind(1)
        return Features(embeds, tuple(deepstack))

    def forget(self) -> None:
        """The tower has learnt: nothing is true any more."""
        self._where.fill_(-1)
        self._kept = 0

    def _made(self, see: Callable[[Tensor], Features], keys: Tensor) -> Tensor:
        """[n, 1 + deepstack layers, tokens, hidden] of up to _AT_ONCE keys int64 [n]."""
        number, stride = keys // _STRIDES, keys % _STRIDES
        clip, frame = number // self._frames.shape[1], number % self._frames.shape[1]
        pairs = torch.stack((self._frames[clip, frame - stride], self._frames[clip, frame]), dim=1)
        seen = see(torch.cat((pairs, pairs[:1].expand(_AT_ONCE - len(pairs), -1, -1, -1, -1))))
        layers = (seen.embeds, *(layer.to(seen.embeds.dtype) for layer in seen.deepstack))
        return torch.stack(layers, dim=1)[: len(keys)]

    def _keep(self, keys: Tensor, made: Tensor) -> None:
        if not len(self._store):
            most = self._most // (made[0].numel() * made.element_size())
            self._store = made.new_empty(min(len(self._where), most), *made.shape[1:])
        slots = torch.arange(self._kept, self._kept + len(keys))
        self._store[slots] = made
        self._where[keys] = slots
        self._kept += len(keys)
