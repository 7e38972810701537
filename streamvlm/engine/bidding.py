"""Bidding: what each stream could do in the coming step, and doing what was granted of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streamvlm.engine.losses import report_losses
from streamvlm.engine.planning import Bid, Grant, Sort, due
from streamvlm.engine.reader import Reader
from streamvlm.engine.recall import readers_with_rows
from streamvlm.engine.step import StreamWork, Turn
from streamvlm.engine.stream import StreamState

PROMPT_CHUNK = 256  # rows of one question prefilled in one step at most
DELIMITERS = 8  # rows around a frame's own, about


class Work(NamedTuple):
    """Whose rows a bid is about; without a reader, the stream's newest frame."""

    stream: StreamState
    reader: Reader | None


def interval(stream: StreamState) -> float:
    """Seconds from one block to the next."""
    spread = 1 if stream.rationing is None else stream.rationing.every
    return spread * stream.model.pixels.advance / stream.config.fps


def bids(stream: StreamState) -> Iterator[Bid[Work]]:
    """What `stream` could do now."""
    seen = 0 if stream.window is None else stream.window.cache.extent
    if stream.may_perceive():
        yield _frame(stream, seen)
    for reader in (*readers_with_rows(stream), *stream.background):
        unread = reader.unread
        sort = Sort.TOKEN if not unread and reader.sort is Sort.PROMPT else reader.sort
        rows = min(unread, PROMPT_CHUNK) or 1
        yield Bid(Work(stream, reader), sort, rows, seen, reader.account, whole=False)


def pass_unchanged(stream: StreamState) -> bool:
    """See a block in which pruning found nothing new: the clock goes on, without a step. False if the next is not
    such a block."""
    block = stream.arrived
    if block is None or len(block.tokens) or stream.window is None or not stream.may_perceive():
        return False
    stream.perceiver.blocks.take(1)
    report_losses(stream, block)
    stream.saw(block, rows=0, step_seconds=0.0)
    return True


def _frame(stream: StreamState, seen: int) -> Bid[Work]:
    block = stream.arrived
    assert block is not None
    rows = len(block.tokens) + DELIMITERS
    deadline = float("inf")
    if block.captured is not None:
        shown = block.captured + block.last_pts - block.tokens.pts  # when its last frame was
        deadline = due(shown, interval(stream))
    return Bid(Work(stream, None), Sort.FRAME, rows, seen + rows, stream.watching, deadline)


def carry_out(stream: StreamState, grants: Sequence[Grant[Work]]) -> StreamWork | None:
    """Place what was granted to one stream, its frame first; None if that comes to nothing.

    Raises:
        BudgetError: the frame does not fit.
    """
    frame = any(g.bid.what.reader is None for g in grants)
    perception = None
    if frame:
        perception = stream.perceive()
    elif stream.arrived is None:
        perception = stream.open_past()
    turns = tuple(_turns(stream, grants))
    if perception is None and not turns:
        return None
    assert stream.window is not None
    stream.perceived_last = perception is not None
    return StreamWork(stream, perception, turns, stream.window, stream.mind.listens)


def _turns(stream: StreamState, grants: Sequence[Grant[Work]]) -> Iterator[Turn]:
    for grant in grants:
        reader = grant.bid.what.reader
        if reader is None or not stream.reads(reader):  # it had to make room for the frame
            continue
        assert stream.window is not None
        segment, rows = reader.next_rows(stream.window, grant.rows)
        if reader.live != "snapshot" and not reader.unread and reader.tokens:
            reader.answer.seen_until = stream.now
        stream.rows_thought += len(segment) if reader.on_done is not None else 0
        yield Turn(reader, segment, rows, reader.samples)
