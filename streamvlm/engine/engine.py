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
from contextlib import suppress
from typing import Literal

import torch

from streamvlm.engine.questions import Perception
from streamvlm.engine.recall import look_up, readers_with_rows
from streamvlm.engine.step import StreamWork, Turn, last_rows, run_step
from streamvlm.engine.stream import StreamState
from streamvlm.errors import BudgetError, ModelError, StreamClosed, StreamVLMError
from streamvlm.models.attention import Backend
from streamvlm.models.base import VisionLanguageModel

logger = logging.getLogger(__name__)

Schedule = Literal["packed", "blocking", "alternating"]
SCHEDULES: tuple[Schedule, ...] = ("packed", "blocking", "alternating")
PROMPT_CHUNK = 256  # rows of one question prefilled in one step


class Engine:
    """Runs every stream of one model.

    Args:
        schedule: `packed` perceives and writes in the same forward pass. `blocking` (answer, then watch again) and
            `alternating` (a step of one, a step of the other) are what published systems do; they exist to be
            measured against.
        on_step: called on the engine thread after every committed step; tests check the caches there.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        backend: Backend = "sdpa",
        schedule: Schedule = "packed",
        on_step: Callable[[StreamState], None] | None = None,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")
        self.model = model
        self.backend = backend
        self.schedule = schedule
        self.steps = 0
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

    def call(self, command: Callable[[], None]) -> None:
        """`submit`, and wait until it has run."""
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        self.submit(run)
        while not done.wait(1.0):
            if not self._thread.is_alive():
                return

    def stop(self) -> None:
        """Close every stream and end the thread."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, stream: StreamState) -> None:
        """Take on a stream."""
        self.submit(lambda: self._streams.append(stream))

    def remove(self, stream: StreamState, error: Exception) -> None:
        """Close a stream, now, failing what is still open with `error`."""

        def close() -> None:
            if stream in self._streams:
                self._streams.remove(stream)
            stream.close(error)

        with suppress(StreamClosed):  # the engine closed it when it stopped
            self.call(close)

    # The engine thread

    @torch.inference_mode()
    def _run(self) -> None:
        error: StreamVLMError = StreamClosed("the engine has stopped")
        try:
            while True:
                self._wake.clear()  # before looking, so that whatever comes after the look is seen
                if self._stopping:
                    break
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
        self._obey()
        for stream in self._streams:
            stream.close(error)

    def step(self) -> bool:
        """Plan, run and commit one step; False when there is nothing to do."""
        works = [w for w in map(self._plan, list(self._streams)) if w is not None]
        if not works:
            return False
        begun = time.monotonic()
        try:
            logits = run_step(works, self.model, self.backend)
        except RuntimeError as error:  # out of memory, a device that is gone
            logger.exception("the step failed")
            for work in works:
                self._drop(work.stream, ModelError(f"the step failed: {error}"))
            return True
        self._commit(works, logits, time.monotonic() - begun)
        return True

    def _plan(self, stream: StreamState) -> StreamWork | None:
        """What `stream` contributes to the coming step; None when nothing."""
        stream.drop_cancelled()
        stream.note_end()
        stream.look()
        stream.fork_due()
        try:
            perception = self._perceive(stream)
        except BudgetError as error:
            stream.end(error)
            perception = None
        except (ValueError, RuntimeError) as error:
            self._drop(stream, ModelError(f"a frame could not be placed: {error}"))
            return None
        waits = perception is not None and self.schedule == "alternating"
        turns = () if waits else self._turns(stream)
        if perception is None and not turns:
            return None
        stream.perceived_last = perception is not None
        return StreamWork(stream, perception, turns)

    def _perceive(self, stream: StreamState) -> Perception | None:
        if not stream.may_perceive():
            return stream.open_past()
        if stream.readers and self.schedule == "blocking":
            return None
        if stream.readers and self.schedule == "alternating" and stream.perceived_last:
            return None
        return stream.perceive()

    def _turns(self, stream: StreamState) -> tuple[Turn, ...]:
        turns = []
        for reader in readers_with_rows(stream):
            assert stream.window is not None
            segment, rows = reader.next_rows(stream.window, PROMPT_CHUNK)
            turns.append(Turn(reader, segment, rows, reader.samples))
        return tuple(turns)

    def _commit(self, works: list[StreamWork], logits: torch.Tensor, seconds: float) -> None:
        self.steps += 1
        for work in works:
            if work.perception is not None:
                work.stream.commit(work.perception, seconds)
            look_up(work.stream, [t.reader for t in work.turns])
        choosers, _ = last_rows(works)
        for (stream, reader), scores in zip(choosers, logits, strict=True):
            stream.wrote(reader, scores)
        for work in works:
            work.stream.take_stats()
        if self._on_step is not None:
            for work in works:
                self._on_step(work.stream)

    def _drop(self, stream: StreamState, error: Exception) -> None:
        logger.info("stream closed: %s", error)  # the caller is told by the event and by `error`
        if stream in self._streams:
            self._streams.remove(stream)
        stream.close(error)
