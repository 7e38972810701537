"""Engine: the one thread that owns the model and all slots.

Everybody else talks to it through `submit` and bounded queues. Each turn of the loop plans a step, runs it as one
forward pass and commits what it wrote.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeVar

import torch

from streamvlm.engine.admission import check_room, reason, utilisation
from streamvlm.engine.asking import fork_due
from streamvlm.engine.baselines import SCHEDULES, Schedule, allowed
from streamvlm.engine.bidding import Work, bids, carry_out, interval, pass_unchanged
from streamvlm.engine.costs import CostModel
from streamvlm.engine.interests import publish
from streamvlm.engine.planning import Bid, Grant, Planner, longest_step
from streamvlm.engine.recall import look_up
from streamvlm.engine.step import Outcome, StreamWork, last_rows, prepare_step
from streamvlm.engine.stream import StreamState
from streamvlm.engine.tower import Tower
from streamvlm.errors import BudgetError, ModelError, StreamClosed, StreamVLMError
from streamvlm.models.attention import Backend
from streamvlm.models.backends import BackendTable, fixed
from streamvlm.models.base import VisionLanguageModel

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """Runs every stream of one model.

    Args:
        backend: how attention is computed, or a table by which that is chosen for every step.
        schedule: what may go into a step together; all but `packed` exist to be measured against.
        clock: seconds that never go back, and `prepare` what makes a step ready to be computed; simulations have
            their own.
        on_step: called on the engine thread after every committed step; tests check the caches there.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        backend: Backend | BackendTable = "sdpa",
        schedule: Schedule = "packed",
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[list[StreamWork], VisionLanguageModel, Backend], Callable[[], Outcome]] = prepare_step,
        on_step: Callable[[StreamState], None] | None = None,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")
        self.model = model
        self.backends = backend if isinstance(backend, BackendTable) else fixed(backend)
        self.schedule = schedule
        self.eases = schedule == "packed"  # whether live streams give things up under load; no baseline does
        self.clock = clock
        self.planner: Planner[Work] = Planner(CostModel())
        self.tower = Tower(model, clock=clock)  # of all streams, on their own threads
        self.steps = 0
        self.turn: AbstractContextManager[object] = nullcontext()  # held while caches change, where threads share them
        self._prepare = prepare
        self._on_step = on_step
        self._streams: list[StreamState] = []
        self._inbox: deque[Callable[[], None]] = deque()
        self._door = threading.Lock()  # nothing enters the inbox once the thread has emptied it for the last time
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="streamvlm-engine", daemon=True)

    # From any thread

    def start(self) -> None:
        """Begin to run steps."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something new to do."""
        self._wake.set()

    def submit(self, command: Callable[[], None]) -> None:
        """Have `command` run on the engine thread between two steps.

        Raises:
            StreamClosed: the engine has stopped.
        """
        with self._door:
            if self._stopping or not self._thread.is_alive():
                raise StreamClosed("the engine has stopped")
            self._inbox.append(command)
        self.wake()

    def call(self, command: Callable[[], T]) -> T:
        """`submit`, wait until it has run, and give what it returns or raises.

        Raises:
            StreamClosed: the engine has stopped.
        """
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(command())
            except Exception as problem:  # noqa: BLE001 - it is raised again where somebody waits for it
                done.set_exception(problem)

        self.submit(run)
        while not wait([done], 1.0).done:
            if not self._thread.is_alive() and not done.done():
                raise StreamClosed("the engine has stopped")
        return done.result()

    def stop(self) -> None:
        """Close every stream and end the thread."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, stream: StreamState) -> None:
        """Take on a stream."""
        self.submit(lambda: self.adopt(stream))

    def check_room(self, seconds: float) -> None:
        """Raise BusyError if there is no time for one more live stream with a block every `seconds`."""
        check_room(list(self._streams), self.planner.costs, seconds)

    def remove(self, stream: StreamState, error: Exception) -> None:
        """Close a stream, now, failing what is still open with `error`."""

        def close() -> None:
            if stream in self._streams:
                self._streams.remove(stream)
            stream.close(error)

        with suppress(StreamClosed):  # the engine closed it when it stopped
            self.call(close)

    # The engine thread

    def adopt(self, stream: StreamState) -> None:
        """Count a stream among those to be served; on the engine thread, or where steps are run by hand."""
        stream.watching.enter(s.watching for s in self._streams)
        stream.asking.enter(s.asking for s in self._streams)
        self._streams.append(stream)

    @torch.inference_mode()
    def _run(self) -> None:
        error: StreamVLMError = StreamClosed("the engine has stopped")
        try:
            while True:
                self._wake.clear()  # before looking, so that whatever comes after the look is seen
                if self._stopping:
                    break
                with self.turn:
                    self._obey()
                if not self.step():
                    self._wake.wait()
        except Exception as problem:  # whatever it is, the owner of every stream must hear of it
            logger.exception("the engine failed")
            error = ModelError(f"the engine failed: {problem!r}")
        finally:
            self._shut(error)

    def _obey(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _shut(self, error: StreamVLMError) -> None:
        with self._door:
            self._stopping = True
        with self.turn:
            self._obey()
            for stream in self._streams:
                stream.close(error)

    def step(self) -> bool:
        """Plan, run and commit one step; False when there is nothing to do."""
        begun = self.clock()
        works = self.plan(begun)
        return bool(works) and self.carry(works, begun)

    def plan(self, now: float) -> list[StreamWork]:
        """What goes into the coming step, placed in its slots."""
        offers = [bid for stream in list(self._streams) for bid in self._offers(stream)]
        grants = self.planner.plan(offers, self.longest_step, now)
        return [w for stream in list(self._streams) if (w := self._placed(stream, grants)) is not None]

    def ready(self, works: list[StreamWork]) -> Callable[[], Outcome]:
        """What computes a step that has been planned."""
        backend = self.backends.choose(sum(w.rows for w in works), max(map(_extent, works)))
        return self._prepare(works, self.model, backend)

    def carry(self, works: list[StreamWork], begun: float, run: Callable[[], Outcome] | None = None) -> bool:
        """Compute and commit a step that was planned at `begun`; `run` if it has been made ready."""
        try:
            outcome = (run or self.ready(works))()
        except RuntimeError as error:  # out of memory, a device that is gone
            logger.exception("the step failed")
            with self.turn:
                for work in works:
                    self._drop(work.stream, ModelError(f"the step failed: {error}"))
            return True
        with self.turn:
            self._commit(works, outcome, self.clock() - begun)
            self._learn(works, self.clock() - begun)
        return True

    @property
    def longest_step(self) -> float:
        """Seconds that a step should take at most, so that no frame waits long for the step before its own."""
        return longest_step([interval(s) for s in self._streams if s.paced and not s.ended])

    def _offers(self, stream: StreamState) -> list[Bid[Work]]:
        """What `stream` could do in the coming step."""
        self._end_cancelled(stream)
        stream.note_end()
        stream.look()
        busy = utilisation(self._streams, self.planner.costs) if stream.waiting else 0.0
        stream.refusing = reason(stream, busy)
        publish(stream)
        fork_due(stream)
        while pass_unchanged(stream):
            stream.note_end()
            stream.look()
            fork_due(stream)
        stream.mind.think(stream)
        return allowed(self.schedule, stream, list(bids(stream)))

    def _end_cancelled(self, stream: StreamState) -> None:
        stream.drop_cancelled()

    def _placed(self, stream: StreamState, grants: list[Grant[Work]]) -> StreamWork | None:
        """What `stream` contributes to the coming step; None when nothing."""
        mine = [g for g in grants if g.bid.what.stream is stream]
        try:
            return carry_out(stream, mine)
        except BudgetError as error:
            stream.end(error)
            return None
        except (ValueError, RuntimeError) as error:
            self._drop(stream, ModelError(f"a frame could not be placed: {error}"))
            return None

    def _commit(self, works: list[StreamWork], outcome: Outcome, seconds: float) -> None:
        self.steps += 1
        choosers, _ = last_rows(works)  # before anything changes
        works = [work for work in works if not work.stream.closed]  # by another thread, where there is one
        for work in works:
            if work.perception is not None:
                work.stream.commit(work.perception, seconds)
            look_up(work.stream, [t.reader for t in work.turns if work.stream.reads(t.reader)])
        for (stream, reader), logits, hidden in zip(choosers, outcome.logits, outcome.hidden, strict=True):
            if reader is not None and stream.reads(reader):
                stream.wrote(reader, logits)
            elif reader is None and not stream.closed:
                stream.mind.hear(stream, logits, hidden)
        for work in works:
            work.stream.take_stats()
        if self._on_step is not None:
            for work in works:
                self._on_step(work.stream)

    def _learn(self, works: list[StreamWork], seconds: float) -> None:
        rows = [work.rows for work in works]
        seen = [_extent(work) for work in works]
        self.planner.costs.learn(sum(rows), sum(n * s for n, s in zip(rows, seen, strict=True)), seconds)
        busy = utilisation(self._streams, self.planner.costs)
        for work in works:
            if work.stream.rationing is not None:
                work.stream.rationing.ration.load = busy

    def _drop(self, stream: StreamState, error: Exception) -> None:
        logger.info("stream closed: %s", error)  # the caller is told by the event and by `error`
        if stream in self._streams:
            self._streams.remove(stream)
        stream.close(error)


def _extent(work: StreamWork) -> int:
    """Slots that a stream's rows attend to."""
    return work.window.cache.extent
