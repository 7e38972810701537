"""How typical a token is of its frame and of the past: what STC-Pruner and VidCom2 rank by."""

from __future__ import annotations

import torch
from torch import Tensor

from streamvlm.pruning.dtd import unit

WIDTHS = (-3, -2, -1, 0, 1)  # powers of two, variances of the Gaussians that are added up


def likeness(a: Tensor, b: Tensor) -> Tensor:
    """float [n]: the sum of Gaussians of the distance of rows `a` [n, c] to `b` [c]; 5 where they are equal."""
    square = (a - b).square().sum(1)
    return torch.stack([torch.exp(-square / (2 * 2.0**k)) for k in WIDTHS]).sum(0)


class Past:
    """The mean of all frames so far, in channels chosen once. Bounded: a sum and a count."""

    def __init__(self) -> None:
        self._channels: Tensor | None = None  # int64 [c], ascending; frozen, so that a column is always one channel
        self._sum: Tensor | None = None  # float32 [c]

    def reset(self) -> None:
        """Forget channels and frames."""
        self._channels = self._sum = None

    def reduce(self, embeds: Tensor) -> Tensor:
        """float32 [n, c] of length 1: the half of the channels that varied least over the first frame's tokens."""
        if self._channels is None:
            quiet = embeds.float().var(0, correction=0).argsort(stable=True)[: embeds.shape[1] // 2]
            self._channels = quiet.sort().values
        return unit(embeds[:, self._channels])

    def add(self, frame: Tensor) -> Tensor:
        """Count in a frame's mean, float32 [c]; the mean of all so far, of length 1."""
        self._sum = frame.clone() if self._sum is None else self._sum + frame
        return unit(self._sum[None])[0]

    def typicality(self, embeds: Tensor) -> Tensor:
        """float [n] for a frame that is now part of the past: how typical each token is of it and of all."""
        features = self.reduce(embeds)
        frame = features.mean(0)
        return likeness(features, frame) + likeness(features, self.add(frame))
