"""Recalling: stored blocks in a reader's own slots, between its sinks and its window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from streamvlm.errors import BudgetError
from streamvlm.memory.blocks import BlockRun
from streamvlm.memory.rows import LayerRows
from streamvlm.memory.slots import SHARED, SlotCache
from streamvlm.memory.window import Window


def recall(window: Window, reader: int, layers: Sequence[BlockRun], *, alone: bool = False) -> None:
    """Let a reader see blocks, in time order, between its sinks and its window, or `alone` instead of the window.

    `layers` holds one run of blocks for all layers, or for each layer its own, which holds that layer alone
    (ReKV, arXiv 2503.00540, lets every layer choose). The window stays where it is: the sinks, in versions of the
    reader's own, move back to make room. Every layer spans the same positions: those of a layer that has fewer blocks
    end where the others' end, next to the window. Call before the question's rows are placed.

    Raises:
        BudgetError: there are too few free slots; nothing has changed.
    """
    head, cache = window.head_of(reader), window.cache
    rows = max(map(len, layers))
    needed = rows + sum(map(len, head.slots))
    if needed > cache.free:
        raise BudgetError(f"{needed} slots wanted to recall {rows} rows, {cache.free} free")
    seen = _snapshot(cache, reader)
    rest = seen.clone()
    for slots in head.slots:
        rest[slots] = False
    ahead = not alone and bool(rest.any())
    stop = int(cache.position[rest].min()) if ahead else cache.readers[reader].cursor
    span = max(run.extent for run in layers)
    if head.slots:
        sinks = torch.cat(head.slots)
        back = stop - span - 1 - int(cache.position[sinks].max())
        values = cache.values[:, :, sinks.to(cache.shape.device)]
        cache.load(reader, torch.cat(head.masters, 2), values, cache.position[sinks] + back)
    cache.readers[reader].hidden = (seen if alone else seen & ~rest).nonzero().squeeze(1)
    places = [run.positions + (stop - run.extent) for run in layers]
    if len(layers) == 1:
        cache.load(reader, layers[0].keys, layers[0].values, places[0])
    else:
        rows_of = zip(layers, places, strict=True)
        cache.load_layers(reader, [LayerRows(run.keys[0], run.values[0], at) for run, at in rows_of])


def _snapshot(cache: SlotCache, reader: int) -> Tensor:
    """bool [capacity], the shared slots that a reader's epoch shows."""
    epoch = cache.readers[reader].epoch
    return (cache.reader == SHARED) & (cache.birth <= epoch) & (epoch < cache.death)
