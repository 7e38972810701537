"""Board: what a session waits for ("tell me when …"), kept while sources come and go."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Stream, StreamClosed, StreamVLMError, Watch
from streamvlm.demo.chat.refusals import Refused

COOLDOWN = 2.0  # seconds of stream between two firings of one watch


@dataclass(slots=True)
class Standing:
    """One thing waited for."""

    number: int
    condition: str
    paused: bool = False
    firings: list[tuple[int, float]] = field(default_factory=list)  # run, seconds of stream
    watch: Watch | None = None  # on the stream of now; None while nothing is watched

    def row(self) -> dict[str, Any]:
        """As JSON."""
        watch = self.watch
        seen = None if watch is None or watch.probability is None else round(watch.probability, 2)
        ended = watch is None or watch.error is None or isinstance(watch.error, StreamClosed)
        trouble = "" if ended else "It cannot be watched for here."
        kept = {"number": self.number, "condition": self.condition, "paused": self.paused, "firings": self.firings}
        return {**kept, "probability": seen, "trouble": trouble}


class Board:
    """The standing watches of one session. Every method may be called from any thread."""

    def __init__(self, rows: list[dict[str, Any]], most: int) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._stream: Stream | None = None
        self._standing = [
            Standing(row["number"], row["condition"], row["paused"], [(run, at) for run, at in row["firings"]])
            for row in rows
        ]

    def rows(self) -> list[dict[str, Any]]:
        """All of them, as JSON."""
        with self._lock:
            return [one.row() for one in self._standing]

    def conditions(self) -> list[tuple[int, bool]]:
        """The number of each, and whether it is paused."""
        with self._lock:
            return [(one.number, one.paused) for one in self._standing]

    def add(self, condition: str) -> None:
        """Wait for one thing more.

        Raises:
            Refused: nothing to wait for, too many, or too long.
        """
        condition = condition.strip()
        with self._lock:
            if not condition:
                raise Refused("Say what to wait for first.")
            if len(self._standing) >= self._most:
                raise Refused(f"{self._most} things are waited for. Remove one first.")
            one = Standing(max((s.number for s in self._standing), default=0) + 1, condition)
            self._begin(one)
            self._standing.append(one)

    def pause(self, number: int, paused: bool) -> None:
        """Wait for it no more, for now; or again."""
        with self._lock:
            for one in self._standing:
                if one.number == number and one.paused != paused:
                    one.paused = paused
                    self._end(one)
                    self._begin(one)

    def remove(self, number: int) -> None:
        """Forget it."""
        with self._lock:
            for one in self._standing:
                if one.number == number:
                    self._end(one)
            self._standing = [one for one in self._standing if one.number != number]

    def attach(self, stream: Stream | None) -> None:
        """Wait on another stream from now on; None: on nothing."""
        with self._lock:
            for one in self._standing:
                self._end(one)
            self._stream = stream
            for one in self._standing:
                self._begin(one)

    def fired(self, run: int, condition: str, at: float) -> bool:
        """Note when something came true; whether it was waited for."""
        with self._lock:
            for one in self._standing:
                if one.watch is not None and one.watch.condition == condition:
                    one.firings.append((run, round(at, 2)))
                    return True
            return False

    def _begin(self, one: Standing) -> None:
        if self._stream is None or one.paused:
            return
        try:
            one.watch = self._stream.watch(one.condition, cooldown=COOLDOWN)
        except (ValueError, StreamVLMError) as error:
            raise Refused(f"This cannot be waited for: {error}.") from None

    def _end(self, one: Standing) -> None:
        if one.watch is not None:
            one.watch.cancel()
            one.watch = None
