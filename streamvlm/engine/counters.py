"""What a stream says about itself in numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamvlm.engine.events import FramePerceived, RationChanged, StreamStats
from streamvlm.engine.perceiver import Block
from streamvlm.engine.ration import Choice
from streamvlm.memory.window import Window
from streamvlm.models.base import VisionLanguageModel

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState


def perceived(window: Window, block: Block, rows: int, lag: float | None, step_seconds: float) -> FramePerceived:
    """What is told of a block that is now in the window."""
    return FramePerceived(
        pts=block.last_pts,
        frames=block.frames,
        lag=lag,
        step_seconds=step_seconds,
        tokens=rows,
        window_tokens=len(window),
        slots_used=window.cache.used,
        capacity=window.cache.shape.capacity,
        grid=block.tokens.grid,
        kept=tuple(block.tokens.slot.tolist()),
        saved=block.saved,
        encode_seconds=block.encode_seconds,
        batch=block.batch,
    )


def tell(stream: StreamState, block: Block, rows: int, lag: float | None, step_seconds: float) -> None:
    """Tell that a block is in the window, and before that, if so, that it is shown otherwise than those before it."""
    assert stream.window is not None
    if block.chosen is not None and stream.rationing is not None:
        stream.rationing.told += 1
        stream.emit(_rationed(stream.model, block.tokens.pts, block.chosen))
    stream.emit(perceived(stream.window, block, rows, lag, step_seconds))


def _rationed(model: VisionLanguageModel, pts: float, chosen: Choice) -> RationChanged:
    height, width = model.pixels.target_size(chosen.size.height, chosen.size.width)
    return RationChanged(
        pts=pts,
        fps=chosen.fps,
        height=height,
        width=width,
        tokens=chosen.size.tokens,
        rate=chosen.rate,
        budget=chosen.budget,
        moving=chosen.moving,
        enough=chosen.enough,
    )


def count(stream: StreamState) -> StreamStats:
    """The counters as of now."""
    window, compressed = stream.window, 0 if stream.economy is None else stream.economy.compressed
    if window is None:
        return replace(stream.stats, frames_dropped=stream.frames_dropped, gap_seconds=stream.gap_seconds)
    lost = 0 if stream.memory is None else stream.memory.lost_tokens  # taken, and then not written after all
    lost += compressed
    return StreamStats(
        stream.frames,
        stream.frames_dropped,
        stream.gap_seconds,
        tokens_seen=window.count.seen,
        tokens_window=len(window),
        tokens_stored=window.count.stored - lost,
        tokens_dropped=window.count.dropped + lost,
        peak_slots=window.cache.peak_used,
        capacity=window.cache.shape.capacity,
        rebases=window.rebases,
        rung=0 if stream.ladder is None else int(stream.ladder.rung),
        climbed=() if stream.ladder is None else stream.ladder.counts,
        rows_thought=stream.rows_thought,
        saved=replace(stream.saved, compressed=compressed),
        rations=0 if stream.rationing is None else stream.rationing.told,
        frames_spared=0 if stream.rationing is None else stream.rationing.spared,
    )
