"""How many slots a stream needs, so that its cache can be allocated once and never grow."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamvlm.memory.policies import FullAttention, LastFrames, SinkWindow, SlidingWindow, WindowPolicy
from streamvlm.memory.slots import CacheShape, SlotCache
from streamvlm.memory.window import Window
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import WatchConfig

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamSize:
    """What the first block tells about a stream."""

    prefix: int  # tokens of the opening text
    block: int  # tokens of one temporal patch with its delimiters
    frames_per_block: int
    largest: int = 0  # tokens of the largest one to come, where they differ


@dataclass(frozen=True, slots=True)
class Budget:
    """A stream's slots and what they are for."""

    window: int  # tokens the window may hold
    moved: int  # new versions of sinks and text, while the old ones are still in use
    pinned: int  # evicted tokens that readers may keep alive
    readers: int  # private rows of all readers together

    @property
    def capacity(self) -> int:
        """Slots in all."""
        return self.window + self.moved + self.pinned + self.readers


def make_policy(config: WatchConfig, frames_per_block: int) -> WindowPolicy:
    """The window policy a user named."""
    match config.policy:
        case "sink_window":
            return SinkWindow(config.window_seconds, config.text_window, config.sink_frames)
        case "full":
            return FullAttention()
        case "last_frames":
            return LastFrames(math.ceil(config.last_frames / frames_per_block))
        case _:
            return SlidingWindow(config.window_seconds, recompute=config.policy == "sliding_recompute")


def size_of(stream: StreamState, prefix: int, block: int) -> StreamSize:
    """What a stream's first block of so many rows tells about it, after a prefix of so many."""
    advance, rationing = stream.model.pixels.advance, stream.rationing
    if rationing is None or stream.arrived is None:
        return StreamSize(prefix, block, advance)
    around = block - len(stream.arrived.tokens)  # delimiters
    usual, largest = rationing.room(pruned=stream.economy is not None)
    return StreamSize(prefix, max(block, usual + around), advance, largest + around)


def plan_budget(config: WatchConfig, size: StreamSize) -> Budget:
    """Slots for a stream whose blocks are as large as its first; later, larger ones shorten the window."""
    per_second = config.fps / size.frames_per_block
    if config.policy == "full":
        window = config.full_capacity_tokens
    elif config.policy == "last_frames":
        window = size.prefix + math.ceil(config.last_frames / size.frames_per_block) * size.block
    else:
        blocks = math.ceil(config.window_seconds * per_second) + 1
        window = size.prefix + (config.sink_frames + blocks) * size.block + config.text_window
        window += max(0, size.largest - size.block)
    # Timestamps grow by a digit now and then; a block's size is not quite constant.
    slack = math.ceil(config.window_seconds * per_second) * 4
    movable = size.prefix + config.sink_frames * (size.block + 4) + config.text_window
    recomputes = config.policy in ("last_frames", "sliding_recompute")
    recalled = 0 if config.store is None else config.retrieve_tokens + movable
    noted = config.notes_tokens if config.notes else 0
    pinned_blocks = math.ceil(config.pinned_seconds * per_second)
    return Budget(
        window=window + slack,
        moved=window + slack if recomputes else movable,
        pinned=pinned_blocks * size.block + (config.max_readers + 1) * (window if recomputes else movable),
        readers=config.max_readers * (config.max_question_tokens + config.max_answer_tokens + recalled + noted)
        + config.background_tokens,
    )


def open_window(model: VisionLanguageModel, config: WatchConfig, budget: Budget) -> Window:
    """Allocate a stream's cache, once and for all, and the window over it."""
    spec = model.text_spec
    shape = CacheShape(
        layers=spec.layers,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        capacity=budget.capacity,
        dtype=model.dtype,
        device=model.device,
    )
    logger.info("cache of %d slots, %.1f MiB", shape.capacity, shape.nbytes / 2**20)
    policy = make_policy(config, model.pixels.advance)
    cache = SlotCache(shape, model.rotary)
    return Window(cache, policy, max_tokens=budget.window, rebase_at=config.rebase_at)
