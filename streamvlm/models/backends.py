"""Backends: which way of computing attention is faster for a step, from a table measured once on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from streamvlm.memory.slots import CacheShape, SlotCache
from streamvlm.models.attention import Backend, make_group
from streamvlm.models.base import VisionLanguageModel

logger = logging.getLogger(__name__)

Shape = tuple[int, int]  # rows of a step, slots they attend to
SHAPES: tuple[Shape, ...] = tuple(product((4, 64, 512), (512, 4096, 16384)))
TIMES = 5  # the fastest counts
Measure = Callable[[VisionLanguageModel, Backend, Shape], float]


@dataclass(frozen=True, slots=True)
class BackendTable:
    """Seconds of one layer's attention, by backend and shape."""

    seconds: Mapping[Backend, Mapping[Shape, float]]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError("a table needs at least one backend")

    def choose(self, rows: int, slots: int) -> Backend:
        """The fastest at the smallest measured shape that is large enough, or else the largest."""
        if len(self.seconds) == 1:
            return next(iter(self.seconds))
        shapes = sorted(set.intersection(*(set(times) for times in self.seconds.values())))
        if not shapes:
            return next(iter(self.seconds))
        fitting = [s for s in shapes if s[0] >= rows and s[1] >= slots] or [shapes[-1]]
        nearest = min(fitting, key=lambda s: (s[0] * s[1], s))
        return min(self.seconds, key=lambda backend: self.seconds[backend][nearest])


def fixed(backend: Backend) -> BackendTable:
    """Always the same."""
    return BackendTable({backend: {}})


def measured(
    model: VisionLanguageModel, shapes: Sequence[Shape] = SHAPES, measure: Measure | None = None
) -> BackendTable:
    """What is fastest here. On a CPU nothing is measured: FlexAttention only pays where it is compiled.

    A shape that a backend cannot compute, for lack of memory say, is left out; one that computes none is, too.
    """
    if model.device.type != "cuda" and measure is None:
        return fixed("sdpa")
    backends: tuple[Backend, ...] = ("sdpa", "flex")
    found: dict[Backend, dict[Shape, float]] = {}
    for backend in backends:
        times = _times(model, backend, shapes, measure or layer_seconds)
        if times:
            found[backend] = times
    logger.info("attention, seconds a layer: %s", found)
    return BackendTable(found) if found else fixed("sdpa")


def _times(
    model: VisionLanguageModel, backend: Backend, shapes: Sequence[Shape], measure: Measure
) -> dict[Shape, float]:
    times = {}
    for shape in shapes:
        try:
            times[shape] = measure(model, backend, shape)
        except RuntimeError as error:  # no memory, no compiler, no kernel for this shape
            logger.info("%s cannot attend at %s: %s", backend, shape, error)
    return times


@torch.inference_mode()
def layer_seconds(model: VisionLanguageModel, backend: Backend, shape: Shape) -> float:
    """Seconds in which one layer's attention is planned and computed, the best of a few times."""
    rows, slots = shape
    spec, device = model.text_spec, model.device
    heads = model.module.config.get_text_config().num_attention_heads
    capacity = slots + rows
    cache = SlotCache(CacheShape(1, spec.kv_heads, spec.head_dim, capacity, model.dtype, device), model.rotary)
    cache.place(torch.zeros(slots, 3, dtype=torch.int64))
    cache.commit()
    placed = cache.place(torch.zeros(rows, 3, dtype=torch.int64))
    query = torch.randn(1, heads, rows, spec.head_dim, dtype=model.dtype, device=device)
    best = float("inf")
    for _ in range(TIMES + 1):  # the first one compiles
        begun = time.perf_counter()
        make_group(cache, slice(0, rows), [placed], backend).attend(0, query, spec.head_dim**-0.5)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return best
