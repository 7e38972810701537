"""Admission: what is promised to those who are here is not given to those who come."""

from __future__ import annotations

from collections.abc import Iterable

from streamvlm.engine.bidding import interval
from streamvlm.engine.costs import CostModel
from streamvlm.engine.ladder import Rung
from streamvlm.engine.stream import StreamState

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
