"""Losses: what was shown and not perceived is counted, told, and written into the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamvlm.engine.events import FramesDropped, Gap
from streamvlm.engine.perceiver import Block
from streamvlm.types import Kind, Segment

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState

LEAST_GAP = 1.0  # seconds; what is shorter is not worth the words


def report_losses(stream: StreamState, block: Block) -> None:
    """Tell what was lost before a block."""
    if block.dropped:
        _drop(stream, block.dropped)
    if block.gap > 0:
        stream.gap_seconds += block.gap
        stream.emit(Gap(block.tokens.pts, block.gap))


def skip(stream: StreamState, blocks: Sequence[Block]) -> None:
    """Blocks that are not perceived, for newer ones are there."""
    for block in blocks:
        report_losses(stream, block)
        stream.missed += block.gap
        _drop(stream, (block.tokens.pts,) * block.frames)


def _drop(stream: StreamState, times: Sequence[float]) -> None:
    stream.frames_dropped += len(times)
    stream.missed += len(times) / stream.config.fps
    stream.emit(FramesDropped(times[0], len(times)))


def gap_text(stream: StreamState, block: Block) -> list[Segment]:
    """What to write into the stream about the time that is missing before a block, so that answers know of it."""
    seconds = stream.missed + block.gap + len(block.dropped) / stream.config.fps
    recomputes = stream.window is None or stream.window.policy.recompute
    if recomputes or not stream.config.write_gaps or seconds < LEAST_GAP:
        return []
    model = stream.model
    return [model.text_segment(model.text_layout(f"<gap {seconds:.1f} s>"), Kind.TEXT, block.tokens.pts)]
