"""Planner: which of all rows that could be computed now go into the coming step.

It knows neither models nor streams, only bids, so that every policy can be tested with made-up ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from streamvlm.engine.costs import CostModel

T = TypeVar("T")

UNMEASURED_ROWS = 256  # rows of a step while nothing is known about what they cost
WORTH = 0.5  # of a step's fixed cost that may be spent on rows however short steps should be, or none would be worth it
LEAST_ROWS = 16  # of a prompt: a smaller piece is not worth a step's while
STEP_PART = 0.125  # of the shortest interval between two frames: one waits for a step, and then for its own
SHORTEST_STEP, LONGEST_STEP = 0.01, 0.25  # seconds, what a step may be planned to take
LONGEST_LAG = 0.5  # seconds by which a frame is due, or a frame interval if that is less


class Sort(IntEnum):
    """What a bid is for, in order of precedence."""

    FRAME = 0
    TOKEN = 1  # the next one of an answer
    PROBE = 2  # of a watch
    PROMPT = 3  # of a question
    NARRATION = 4
    NOTE = 5


# The part of a step that a sort of work gets before anybody gets more. What has a share also gets at least one bid
# granted in every step, so that neither side can starve the other; the rest lives on what is left over.
SHARES = {Sort.FRAME: 0.5, Sort.TOKEN: 0.25, Sort.PROBE: 0.125, Sort.PROMPT: 0.125}


def longest_step(intervals: Sequence[float]) -> float:
    """Seconds that a step should take at most, so that no frame waits long for the step before its own. `intervals`
    are the seconds between two frames of each live stream; inf where there is none, for files can wait."""
    return max(SHORTEST_STEP, min(LONGEST_STEP, STEP_PART * min(intervals))) if intervals else math.inf


def due(shown: float, interval: float) -> float:
    """When a frame that was there at `shown` should have been perceived, in seconds of the same clock."""
    return shown + min(interval, LONGEST_LAG)


@dataclass(slots=True, eq=False)
class Account:
    """What somebody has been served, in seconds of steps, and on whose behalf."""

    owner: Account | None = None
    served: float = 0.0

    def charge(self, seconds: float) -> None:
        """It has got so much more."""
        self.served += seconds
        if self.owner is not None:
            self.owner.charge(seconds)

    def enter(self, present: Iterable[Account]) -> None:
        """Join those present as the least served: having been away earns no credit, and having come late no blame."""
        self.served = max(self.served, min((a.served for a in present), default=0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Bid(Generic[T]):
    """Rows that could go into the coming step."""

    what: T
    sort: Sort
    rows: int  # at most
    seen: int  # slots that each of them attends to
    account: Account = field(default_factory=Account)
    deadline: float = math.inf  # seconds of the engine's clock
    whole: bool = True  # whether fewer rows would be of no use


@dataclass(frozen=True, slots=True, eq=False)
class Grant(Generic[T]):
    """A bid that goes into the step, with so many rows of it."""

    bid: Bid[T]
    rows: int


class Planner(Generic[T]):
    """Fills a step by a budget of seconds.

    Frames go by earliest deadline; those that are late already by who was served least, for under overload earliest
    deadline first lets one stream's lateness ruin all. Within every other sort of work the least served stream, and
    of its readers the least served, comes first, in seconds, not in turns.
    """

    def __init__(self, costs: CostModel) -> None:
        self.costs = costs

    def plan(self, bids: Sequence[Bid[T]], seconds: float, now: float) -> list[Grant[T]]:
        """What goes into a step that should take no longer than `seconds`; never nothing unless nothing is bid."""
        room = max(seconds - self.costs.fixed, WORTH * self.costs.fixed)
        queues = {sort: self._ordered([b for b in bids if b.sort is sort], now) for sort in Sort}
        filling: _Filling[T] = _Filling(self.costs, room)
        for sort, share in SHARES.items():
            filling.take(queues[sort], min(room, filling.spent + share * room), at_least_one=True)
        for sort in Sort:
            filling.take(queues[sort], room, at_least_one=not filling.rows)
        for bid, rows in filling.rows.items():
            bid.account.charge(self.costs.of(rows, rows * bid.seen))
        return [Grant(bid, rows) for bid, rows in filling.rows.items()]

    def _ordered(self, bids: list[Bid[T]], now: float) -> list[Bid[T]]:
        def key(bid: Bid[T]) -> tuple[float, float, float]:
            owner = bid.account.owner
            stream = bid.account.served if owner is None else owner.served
            late = bid.deadline < now or bid.sort is not Sort.FRAME
            return (-math.inf if late else bid.deadline, stream, bid.account.served)

        return sorted(bids, key=key)


class _Filling(Generic[T]):
    """A step being filled."""

    def __init__(self, costs: CostModel, room: float) -> None:
        self.rows: dict[Bid[T], int] = {}  # granted so far
        self.spent = 0.0  # seconds
        self._costs = costs
        self._left = math.inf if costs.warm or math.isinf(room) else UNMEASURED_ROWS  # rows

    def take(self, queue: list[Bid[T]], limit: float, *, at_least_one: bool) -> None:
        """Grant bids of one sort, in their order, until `limit` seconds are spent; what is granted whole leaves the
        queue, of what is granted in part the rest stays."""
        while queue:
            bid = queue[0]
            least = bid.rows if bid.whole else min(bid.rows, LEAST_ROWS)
            rows = self._fitting(bid, limit)
            if rows < least and bid not in self.rows:
                rows = least if at_least_one else 0
            if rows == 0:
                return
            at_least_one = False
            self.rows[bid] = self.rows.get(bid, 0) + rows
            self.spent += self._costs.of(rows, rows * bid.seen)
            self._left -= rows
            if self.rows[bid] < bid.rows:
                return
            queue.pop(0)

    def _fitting(self, bid: Bid[T], limit: float) -> int:
        """How many more of its rows fit."""
        each = self._costs.of(1, bid.seen)
        left = max(0.0, limit - self.spent)
        fit = math.inf if each == 0 or math.isinf(left) else left / each
        return int(max(0, min(bid.rows - self.rows.get(bid, 0), self._left, fit)))
