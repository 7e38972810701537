"""A baseline: perceiving and writing on a thread each, in forward passes of their own, as in Think-While-Watching's
parallel mode (arXiv 2603.11896) but for the races: planning and committing take turns, forward passes overlap.

To be measured against only. An answer that has to make room for a frame while its own forward pass runs writes into
slots that are not its own any more; keep `pinned_seconds` above the time that answers take.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch

from streamvlm.engine.baselines import Schedule
from streamvlm.engine.bidding import Work
from streamvlm.engine.engine import Engine
from streamvlm.engine.planning import Bid
from streamvlm.engine.stream import StreamState
from streamvlm.models.attention import Backend
from streamvlm.models.backends import BackendTable
from streamvlm.models.base import VisionLanguageModel

logger = logging.getLogger(__name__)

LOOK_AGAIN = 0.001  # seconds; both threads wait for the same wake-up, so either may miss one


class TwoThreadEngine(Engine):
    """The engine's own thread perceives; another one writes."""

    def __init__(self, model: VisionLanguageModel, *, backend: Backend | BackendTable = "sdpa") -> None:
        super().__init__(model, backend=backend)
        self.eases = False
        self.turn = threading.Lock()
        self._mine: Callable[[Bid[Work]], bool] = lambda bid: True
        self._failure: Exception | None = None  # what ended the writing thread
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
        """A step of perception alone, on the engine's thread.

        Raises:
            Exception: whatever ended the other thread, so that all streams end with it and their owners are told.
        """
        if self._failure is not None:
            raise self._failure
        return self._half(lambda bid: bid.what.reader is None) or not self._wake.wait(LOOK_AGAIN)

    @torch.inference_mode()
    def _write(self) -> None:
        try:
            while not self._stopping:
                if not self._half(lambda bid: bid.what.reader is not None):
                    self._wake.wait(LOOK_AGAIN)
        except Exception as failure:  # whatever it is, the owner of every stream must hear of it
            logger.exception("the writing thread failed")
            self._failure = failure
            self.wake()

    def _half(self, mine: Callable[[Bid[Work]], bool]) -> bool:
        with self.turn:
            self._mine = mine
            begun = self.clock()
            works = self.plan(begun)
            run = self.ready(works) if works else None  # before the other thread can close what they are rows of
        return run is not None and self.carry(works, begun, run)

    def _end_cancelled(self, stream: StreamState) -> None:
        if threading.current_thread() is not self._thread:  # the one that writes: none of its rows are being computed
            super()._end_cancelled(stream)

    def _offers(self, stream: StreamState) -> list[Bid[Work]]:
        return [bid for bid in super()._offers(stream) if self._mine(bid)]


def make_engine(model: VisionLanguageModel, backend: Backend | BackendTable, schedule: Schedule) -> Engine:
    """The engine for a schedule."""
    if schedule == "two_threads":
        return TwoThreadEngine(model, backend=backend)
    return Engine(model, backend=backend, schedule=schedule)
