"""Session: one stream watched to its end from the command line, with every answer reported exactly once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from streamvlm import Answer, Stream, StreamEvent, StreamStats
from streamvlm.cli.asks import Ask, WatchFor


class Reporter(Protocol):
    """Whoever tells the person, or the program, what happens."""

    def asked(self, answer: Answer) -> None:
        """A question was put; its answer will come."""

    def event(self, event: StreamEvent) -> None:
        """The stream said something."""

    def answered(self, answer: Answer) -> None:
        """An answer is done."""

    def ended(self, stats: StreamStats, error: str | None) -> None:
        """Nothing follows."""


class Session:
    """Puts the questions, follows the events, and ends when all is answered.

    Args:
        linger: stay open for questions after the end of the stream, until `stop`.
    """

    def __init__(self, stream: Stream, reporter: Reporter, *, linger: bool = False) -> None:
        self._stream = stream
        self._reporter = reporter
        self._linger = linger
        self._at_end: list[str] = []
        self._open: list[Answer] = []
        self._lock = threading.Lock()  # questions may come from another thread, the one that reads the keyboard
        self._signal = 0

    def run(self, asks: Iterable[Ask], watches: Iterable[WatchFor] = ()) -> int:
        """Watch; returns the exit code: 0, 1 if the stream failed, 128 + the number of the signal that ended it.

        Raises:
            ValueError: a question or a condition is too long.
        """
        events = self._stream.listen()
        with self._stopped_by_signals():
            for watch in watches:
                self.watch(watch)
            for ask in asks:
                self.ask(ask, late=True)
            self._stream.play()
            if not self._settled():
                for event in events:
                    self._reporter.event(event)
                    if self._settled():
                        break
            self._stream.close()
        for event in events:  # what closing it ended
            self._reporter.event(event)
        self._report_done(everything=True)
        error = self._stream.error
        self._reporter.ended(self._stream.stats, None if error is None else str(error))
        return 128 + self._signal if self._signal else int(error is not None)

    def ask(self, ask: Ask, *, late: bool = False) -> None:
        """Put a question, from any thread; one that comes `late` is asked now instead.

        Raises:
            ValueError: it is too long, or its moment is past.
            StreamClosed: too late.
        """
        if ask.at is None and not self._stream.paced and not self._stream.ended:
            self._at_end.append(ask.question)
            return
        with self._lock:
            answer = self._put(ask, late)
            self._open.append(answer)
        self._reporter.asked(answer)

    def watch(self, watch: WatchFor) -> None:
        """Be told when something happens, from any thread; the reporter hears of it as an event.

        Raises:
            ValueError: it is too long, or its rule makes no sense.
            StreamClosed: too late.
        """
        self._stream.watch(watch.condition, **watch.rule)

    def stop(self) -> None:
        """End it early, from any thread; answers not complete are cancelled."""
        with self._lock:
            for answer in self._open:
                answer.cancel()
        self._stream.close()

    def _put(self, ask: Ask, late: bool) -> Answer:
        try:
            return self._stream.ask(ask.question, at=ask.at)
        except ValueError:
            now = self._stream.now
            if not late or ask.at is None or now is None or ask.at > now:
                raise
            return self._stream.ask(ask.question)  # a live stream may show its first moments before anybody can ask

    def _settled(self) -> bool:
        """Report what is done; whether nothing more can come."""
        self._report_done()
        if not self._stream.ended:
            return False
        while self._at_end:
            self.ask(Ask(self._at_end.pop(0)))
        return not self._open and not self._linger

    def _report_done(self, everything: bool = False) -> None:
        with self._lock:
            done = [answer for answer in self._open if answer.done or everything]
            self._open = [answer for answer in self._open if answer not in done]
        for answer in done:
            self._reporter.answered(answer)

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Ctrl-C and a polite kill end the session as `stop` does; a second one ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}

        def stop(number: int, frame: FrameType | None) -> None:
            self._signal = number
            for restored, handler in before.items():
                signal.signal(restored, handler)
            # A handler runs between any two instructions of the main thread, which may hold a lock that stop needs.
            threading.Thread(target=self.stop, name="streamvlm-stop", daemon=True).start()

        for number in signals:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
