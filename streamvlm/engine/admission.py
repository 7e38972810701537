"""Admission: what is promised to those who are here is not given to those who come."""

from __future__ import annotations

from collections.abc import Iterable

from streamvlm.engine.bidding import interval
from streamvlm.engine.costs import CostModel
from streamvlm.engine.ladder import Rung
from streamvlm.engine.stream import StreamState
from streamvlm.errors import BusyError

MOST = 0.9  # of the engine's time that frames alone may take


def share(stream: StreamState, costs: CostModel) -> float:
    """The part of the engine's time that perceiving `stream` takes; 0 for a file, which waits."""
    if not stream.paced or stream.ended or stream.window is None or not costs.warm:
        return 0.0
    rows = stream.block_rows
    return costs.step(rows, rows * stream.window.cache.extent) / interval(stream)


def utilisation(streams: Iterable[StreamState], costs: CostModel) -> float:
    """The part of the engine's time that perceiving all of them takes, were every frame a step of its own."""
    return sum(share(stream, costs) for stream in streams)


def reason(stream: StreamState, busy: float) -> str | None:
    """Why questions to `stream` are turned away while frames take `busy` of the engine's time, if they are."""
    if busy > MOST:
        return f"watching takes {busy:.0%} of the time there is"
    if stream.ladder is not None and stream.ladder.rung >= Rung.NO_QUESTIONS:
        return "the stream cannot be kept up with, whatever else is given up"
    return None


def check_room(streams: Iterable[StreamState], costs: CostModel, seconds: float) -> None:
    """Raise BusyError if one more live stream would leave too little time: it has a block every `seconds`, taken to
    cost what those of the streams already there do. Of the first stream nothing is known."""
    here = [(share(stream, costs), interval(stream)) for stream in streams]
    blocks = [part * between for part, between in here if part > 0]
    if not blocks:
        return
    taken, more = sum(part for part, _ in here), sum(blocks) / len(blocks) / seconds
    if taken + more > MOST:
        raise BusyError(f"the streams here take {taken:.0%} of the time there is, and one more would take {more:.0%}")
