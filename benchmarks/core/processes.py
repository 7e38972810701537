"""Several processes, each with a GPU of its own, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from streamvlm.benchmarks.core.journal import Shard


@contextmanager
def own_shard(wanted: Shard) -> Iterator[tuple[Shard, bool, dict[str, str]]]:
    """(this process's shard, whether it is the first process, settings of its device).

    `wanted` is dealt out further to the processes. The first process leaves last, so that it can score everything.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield wanted, True, {}
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    count, index = state.num_processes, state.process_index
    device = {"device": f"cuda:{state.local_process_index}"} if torch.cuda.is_available() else {}
    try:
        yield Shard(wanted.index * count + index, wanted.count * count), index == 0, device
    finally:
        state.wait_for_everyone()
        state.destroy_process_group()
