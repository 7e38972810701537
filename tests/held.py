"""A model whose vision tower waits until it is let go, so that what comes meanwhile is known to wait at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from copy import copy

import torch
from families import FAMILIES, overlapping, random_model
from torch import Tensor
from torch.testing import assert_close

from streamvlm.models.base import VisionLanguageModel
from streamvlm.types import VisionTokens

LONG = 1000  # seconds; a hang fails the test by its timeout, never by this
BAD = 13  # grey level of a picture that no tower takes
ALL = [*FAMILIES, "overlapping"]


def model_of(family: str) -> VisionLanguageModel:
    return overlapping() if family == "overlapping" else random_model(family)


def random_pixels(seed: int, n: int, size: tuple[int, int] = (32, 48)) -> Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def assert_same(one: VisionTokens, other: VisionTokens) -> None:
    assert (one.grid, one.pts, one.duration) == (other.grid, other.pts, other.duration)
    assert torch.equal(one.slot, other.slot) and len(one.deepstack) == len(other.deepstack)
    for mine, theirs in zip((one.embeds, *one.deepstack), (other.embeds, *other.deepstack), strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=0)


def until(ready: Callable[[], bool]) -> None:
    """Wait for another thread; the test's timeout is the only limit."""
    while not ready():
        time.sleep(0.001)


class Held:
    """A model whose first call of the tower waits to be let go; bad pictures fail."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self.model = copy(model)
        self.calls: list[list[float]] = []  # the patches of each, by their moment
        self.entered, self.release = threading.Event(), threading.Event()
        self._encode = model.encode_patches
        self.model.encode_patches = self._held  # type: ignore[method-assign]

    @property
    def batches(self) -> list[int]:
        return [len(call) for call in self.calls]

    def _held(self, patches: Sequence[Tensor], spans: Sequence[tuple[float, float]]) -> list[VisionTokens]:
        self.calls.append([pts for pts, _ in spans])
        self.entered.set()
        assert self.release.wait(LONG)
        if any(bool((p == BAD).all()) for p in patches):
            raise RuntimeError("out of memory")
        return self._encode(patches, spans)
