"""Stream: one video being watched, as its user sees it. Every method may be called from any thread."""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamvlm.engine.answer import Answer
from streamvlm.engine.bidding import interval
from streamvlm.engine.checks import check_between, check_moment, check_terms, check_text
from streamvlm.engine.easing import Eased, eased
from streamvlm.engine.engine import Engine
from streamvlm.engine.events import StreamEnded, StreamEvent, StreamStats
from streamvlm.engine.evidence import Moment
from streamvlm.engine.fusion import fuse
from streamvlm.engine.ladder import Ladder
from streamvlm.engine.listeners import Listeners
from streamvlm.engine.longterm import LongTermMemory
from streamvlm.engine.mind import Mind
from streamvlm.engine.perceiver import Perceiver
from streamvlm.engine.planning import LONGEST_LAG
from streamvlm.engine.questions import Question
from streamvlm.engine.rationing import start_rationing
from streamvlm.engine.signal import Channel, Signal
from streamvlm.engine.stream import StreamState
from streamvlm.engine.tower import Tower
from streamvlm.engine.trace import Trace, traced
from streamvlm.errors import BusyError, StreamClosed
from streamvlm.pruning.economy import Economy
from streamvlm.settings import SamplingConfig, WatchConfig, check_options
from streamvlm.thinking import Thinking
from streamvlm.types import Frame


class Stream(Thinking):
    """One video being watched. Made by `Agent.watch`; close it, or use it as a context manager, sync or async."""

    def __init__(
        self,
        engine: Engine,
        source: Iterable[Frame],
        config: WatchConfig,
        sampling: SamplingConfig,
        memory: LongTermMemory | None = None,
        economy: Economy | None = None,
    ) -> None:
        paced = config.realtime or bool(getattr(source, "live", False))
        tower = engine.tower if config.share_tower else Tower(engine.model, clock=engine.clock, together=False)
        perceiver = Perceiver(
            source, tower, paced=paced, queue_frames=config.queue_frames, on_block=engine.wake, economy=economy
        )
        perceiver.rationing = start_rationing(engine.model, config)
        self.config = config
        self.sampling = sampling
        self.paced = paced  # it runs by the clock and waits for nobody
        self.duration: float | None = getattr(source, "duration", None)  # seconds, where the source knows
        self._asked_until = 0.0
        self._open: list[Answer] = []  # not done yet, about
        self._door = threading.Lock()
        self._listeners = Listeners()
        self._ended = Signal()
        state = StreamState(
            engine.model, config, perceiver, self._emit, paced, memory=memory, clock=engine.clock, economy=economy
        )
        state.rationing = perceiver.rationing
        state.mind = Mind.of(config, sampling)
        self._trace = None if config.trace is None else Trace(Path(config.trace))
        if paced and engine.eases:
            ladder = state.ladder = Ladder(min(interval(state), LONGEST_LAG))
            source = eased(source, Eased(source, lambda: ladder.rung, perceiver.drop))
        if self._trace is not None:
            source = traced(source, self._trace)
        perceiver.show(source)
        super().__init__(engine, state)
        if memory is not None:
            perceiver.told.append(memory.looks.note)
        if self._trace is not None:
            perceiver.told.append(self._trace.encoded)
        try:
            engine.add(self._state)
        except StreamClosed:
            perceiver.stop()  # closes the source
            if self._trace is not None:
                self._trace.close()
            raise
        perceiver.start()

    @property
    def now(self) -> float | None:
        """Presentation time of the newest frame perceived, in seconds; None before the first."""
        return self._state.now if math.isfinite(self._state.now) else None

    @property
    def began(self) -> float:
        """Seconds of stream time at which the source's own second 0 lies: more than 0 where a store goes on."""
        return 0.0 if self._state.memory is None else self._state.memory.began

    @property
    def ended(self) -> bool:
        """Whether the source is exhausted. What was seen can still be asked about until the stream is closed."""
        return self._state.ended

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def error(self) -> Exception | None:
        """What ended the stream, if it did not end well."""
        return self._state.error

    @property
    def stats(self) -> StreamStats:
        """Counters of frames, tokens and slots."""
        return self._state.stats

    def ask(
        self,
        question: str,
        *,
        at: float | None = None,
        between: tuple[float, float] | None = None,
        memory: bool | None = None,
        notes: bool | None = None,
        noted: bool | None = None,
        **sampling: Any,  # noqa: ANN401
    ) -> Answer:
        """Ask about what has been seen by now, or will have been seen `at` a later moment of the stream.

        Returns at once; perception goes on while the answer is written. An unpaced file plays on to `at`.
        With a `store`, what has left the window and matters to the question is brought back for it, from where its own
        words point ("at 2:10", "an hour ago"), else from anywhere. What is stored of one named moment is shown instead
        of the window, or with `keep_window` beside it. With `between` (start, stop) in seconds, the
        question is about that stretch: what is stored of it is shown instead of the window. With `memory=False` nothing
        is brought back, with `notes=False` no note is shown: the answer is that of a stream without. With `noted=False`
        the answer becomes no note for later questions. By default all that the stream keeps is used. `sampling` are
        fields of SamplingConfig (temperature, max_new_tokens, …).

        Raises:
            ValueError: an empty or too long question, a moment already past, something to be used that the stream does
                not keep, an unknown sampling option.
            StreamClosed: the stream is closed.
            BusyError: max_questions are open. Of a live stream that takes all there is, the answer fails with it.
        """
        check_options(sampling, SamplingConfig)
        check_text(self._state, question, self.config.max_question_tokens)
        check_moment(self._state, at, self._asked_until)
        terms = check_terms(self._state, memory, notes, noted)
        check_between(self._state, between, memory)
        answer = Answer(question, at, self._engine.wake, self._engine.clock)
        self._put(Question(answer, replace(self.sampling, **sampling), at, between, terms=terms))
        return answer

    def recall(
        self, query: str, *, between: tuple[float, float] | None = None, timeout: float | None = None
    ) -> tuple[Moment, ...]:
        """The stored moments that matter to `query`, in time order, without writing an answer. With notes, what they
        say of is among them, and scores are by rank in both.

        Raises:
            ValueError: the stream has no store, an empty or too long query, a wrong stretch.
            TimeoutError: `timeout` seconds passed first.
            StreamClosed: the stream is closed.
        """
        check_text(self._state, query, self.config.max_question_tokens)
        taker = self._state.mind.taker
        noted = () if taker is None else taker.notes.find(query, between=between)
        if self._state.memory is None and taker is not None:
            return fuse((), noted)
        check_between(self._state, between)
        if self._state.memory is None:
            raise ValueError("this stream keeps nothing: watch it with store=FOLDER or notes=True")
        answer = Answer(query, None, self._engine.wake, self._engine.clock)
        self._put(Question(answer, self.sampling, None, between, writes=False))
        answer.text(timeout)
        return fuse(answer.recalled, noted) if taker is not None else answer.recalled

    def _put(self, pending: Question) -> None:
        state, answer, at = self._state, pending.answer, pending.at

        def add() -> None:
            if state.closed:
                state.finish(answer, "failed", state.error or StreamClosed("the stream is closed"))
                return
            state.waiting.append(pending)
            if at is not None:
                state.play_until = max(state.play_until, at)

        if self._closed:
            raise StreamClosed("the stream is closed")
        self._enter(answer)
        if at is not None:
            self._asked_until = max(self._asked_until, at)
        self._engine.submit(add)

    def _enter(self, answer: Answer) -> None:
        """Count an answer among the open ones, if there are not too many."""
        with self._door:
            self._open = [a for a in self._open if not a.done]
            if len(self._open) >= self.config.max_questions:
                raise BusyError(f"{len(self._open)} questions are open; max_questions allows no more")
            self._open.append(answer)

    def picture(self, at: float) -> tuple[float, bytes] | None:
        """(seconds, JPEG) of what was to be seen at `at` seconds, as far as it is kept: the newest picture that is not
        later, else the first one; None where none is kept (`store` keeps them, `store_pictures` wide).

        Raises:
            StoreError: the disk does not give it back.
            StreamClosed: the stream is closed.
        """
        if self._closed:
            raise StreamClosed("the stream is closed")
        return None if self._state.memory is None else self._state.memory.picture(at)

    def play(self, until: float = math.inf) -> None:
        """Let an unpaced file run on to `until` seconds, by default to its end; returns at once."""
        self._asked_until = max(self._asked_until, until)

        def extend() -> None:
            self._state.play_until = max(self._state.play_until, until)

        self._engine.submit(extend)

    def wait(self, timeout: float | None = None) -> StreamStats:
        """Play to the end and wait for it; returns the counters.

        Raises:
            TimeoutError: `timeout` seconds passed first.
            SourceError: the source failed on the way; what was seen can still be asked about.
        """
        with suppress(StreamClosed):  # then it ends, or has ended
            self.play()
        if not self._ended.wait_for(lambda: self.ended, timeout):
            raise TimeoutError(f"the stream has not ended within {timeout} s")
        if self.error is not None:
            raise self.error
        return self.stats

    def events(self) -> Channel[StreamEvent]:
        """What happens from now on, to be iterated with `for` or `async for`; ends when the stream is closed.

        Whoever listens first also gets what happened before (the newest 256 events). An unpaced file plays to its end
        for it. The channel keeps the newest 4096 events and counts the rest in `missed`.
        """
        channel = self.listen()
        if not self.ended and not self._closed:
            self.play()
        return channel

    def listen(self) -> Channel[StreamEvent]:
        """The same events without making an unpaced file play."""
        return self._listeners.open()

    def check(self) -> int:
        """Verify, between two steps, that every slot and token of the stream is accounted for; returns how many slots
        are neither free nor the window's, but those of answers, of thoughts, and of what they still see.

        Raises:
            AssertionError: one is not; a bug.
            StreamClosed: the stream is closed.
        """
        if self._closed:
            raise StreamClosed("the stream is closed")
        return self._engine.call(self._state.check)

    def close(self) -> None:
        """Stop watching, fail what is still being answered with StreamClosed, free the memory. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._engine.remove(self._state, StreamClosed("the stream is closed"))
        self._state.perceiver.join()
        if self._state.memory is not None:
            self._state.memory.close()
        self._state.mind.finish_writing()
        if self._trace is not None:
            self._trace.close()
        self._calls.close()
        self._listeners.close()

    def _emit(self, event: StreamEvent) -> None:
        self._listeners.tell(event)
        if self._trace is not None:
            self._trace.event(event)
        if isinstance(event, StreamEnded):
            with self._ended.changing():
                pass

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self.events())

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return aiter(self.events())
