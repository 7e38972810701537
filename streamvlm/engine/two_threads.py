"""A baseline: perceiving and writing on a thread each, in forward passes of their own, as in Think-While-Watching's
parallel mode (arXiv 2603.11896) but for the races: planning and committing take turns, forward passes overlap.

To be measured against only. An answer that has to make room for a frame while its own forward pass runs is not
guarded against; keep `pinned_seconds` above the time that answers take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from streamvlm.engine.baselines import Schedule
from streamvlm.engine.bidding import Work
from streamvlm.engine.engine import Engine
from streamvlm.engine.planning import Bid
from streamvlm.engine.step import Outcome, StreamWork
from streamvlm.engine.stream import StreamState
from streamvlm.models.attention import Backend
from streamvlm.models.backends import BackendTable
from streamvlm.models.base import VisionLanguageModel

LOOK_AGAIN = 0.001  # seconds; both threads wait for the same wake-up, so either may miss one


class TwoThreadEngine(Engine):
    """The engine's own thread perceives; another one writes."""

    def __init__(self, model: VisionLanguageModel, *, backend: Backend | BackendTable = "sdpa") -> None:
        super().__init__(model, backend=backend)
        self.eases = False
        self.turn = threading.Lock()
        self._mine: Callable[[Bid[Work]], bool] = lambda bid: True
        self._writes = threading.Thread(target=self._write, name="streamvlm-write", daemon=True)

    def start(self) -> None:
        """Begin to run steps."""
        super().start()
        self._writes.start()

    def stop(self) -> None:
        """Close every stream and end both threads."""
        self._stopping = True
        if self._writes.is_alive():
            self._writes.join()
        super().stop()

    def step(self) -> bool:
        """A step of perception alone, on the engine's thread."""
        return self._half(lambda bid: bid.what.reader is None) or not self._wake.wait(LOOK_AGAIN)

    @torch.inference_mode()
    def _write(self) -> None:
        while not self._stopping:
            if not self._half(lambda bid: bid.what.reader is not None):
                self._wake.wait(LOOK_AGAIN)

    def _half(self, mine: Callable[[Bid[Work]], bool]) -> bool:
        with self.turn:
            self._mine = mine
            begun = self.clock()
            works = self.plan(begun)
        return bool(works) and self.carry(works, begun)

    def _commit(self, works: list[StreamWork], outcome: Outcome, seconds: float) -> None:
        if not any(work.stream.closed for work in works):  # the other thread may have closed it meanwhile
            super()._commit(works, outcome, seconds)

    def _offers(self, stream: StreamState) -> list[Bid[Work]]:
        return [bid for bid in super()._offers(stream) if self._mine(bid)]


def make_engine(model: VisionLanguageModel, backend: Backend | BackendTable, schedule: Schedule) -> Engine:
    """The engine for a schedule."""
    if schedule == "two_threads":
        return TwoThreadEngine(model, backend=backend)
    return Engine(model, backend=backend, schedule=schedule)
