"""Answer: one question's handle, fed by the engine thread, read from anywhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Literal

from streamvlm.engine.evidence import Glimpse, Moment, RecallCost, Recalled
from streamvlm.engine.signal import Signal
from streamvlm.errors import ReaderCancelled

Status = Literal["waiting", "writing", "complete", "truncated", "cancelled", "failed"]
FINAL = ("complete", "truncated", "cancelled", "failed")


class Answer:
    """The answer to one question, as of one moment.

    Iterate it (`for piece in answer` or `async for`) for text as it is written, call `text()` or `await` it for the
    whole, `cancel()` it at any time. It speaks about the stream up to `as_of` and nothing later.
    """

    def __init__(
        self,
        question: str,
        asked_at: float | None,
        on_cancel: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.question = question
        self.asked_at = asked_at  # seconds of stream time; None until a question asked "now" is given its snapshot
        self.as_of: float | None = None  # presentation time of the newest frame it knows; None until started
        self.seen_until: float | None = None  # the same; of a live answer, of the newest frame its last token knew
        self.status: Status = "waiting"
        self.tokens = 0  # written so far
        self.tokens_read = 0  # of its question and the notes shown with it, twice where they were looked up by
        self.tokens_recalled = 0  # brought back from memory, and not computed again
        self.ttft_s: float | None = None  # wall seconds from its snapshot to its first token
        self.evidence: tuple[tuple[float, float], ...] = ()  # spans [start, stop) of stream it could see
        self.recalled: tuple[Moment, ...] = ()  # what was brought back from memory for it
        self.in_view: tuple[Glimpse, ...] = ()  # what was in its window besides, of a stream with a store
        self.unreadable = 0  # blocks that were to be brought back and that the disk did not give back
        self.recall_cost: RecallCost | None = None  # where the time of that went; None while nothing was looked up
        self.error: Exception | None = None
        self.cancel_requested = False
        self._pieces: list[str] = []
        self._on_cancel = on_cancel
        self._clock = clock
        self._started = 0.0
        self._signal = Signal()

    def __repr__(self) -> str:
        return f"Answer({self.question!r}, as_of={self.as_of}, {self.status}: {''.join(self._pieces)!r})"

    @property
    def done(self) -> bool:
        """Nothing more will be written."""
        return self.status in FINAL

    @property
    def so_far(self) -> str:
        """The text written up to now."""
        return "".join(self._pieces)

    def cancel(self) -> None:
        """Stop writing; takes effect at the engine's next step. Harmless once done."""
        self.cancel_requested = True
        self._on_cancel()

    def text(self, timeout: float | None = None) -> str:
        """Wait for the end and return the whole text.

        Raises:
            TimeoutError: `timeout` seconds passed; the answer goes on being written.
            ReaderCancelled: it was cancelled.
            StreamVLMError: the stream failed or closed before it was complete.
        """
        if not self._signal.wait_for(lambda: self.done, timeout):
            raise TimeoutError(f"no complete answer to {self.question!r} within {timeout} s")
        return self._result()

    def __iter__(self) -> Iterator[str]:
        seen = 0
        while True:
            self._signal.wait_for(lambda: len(self._pieces) > seen or self.done)  # noqa: B023
            if seen == len(self._pieces):
                self._result()
                return
            yield self._pieces[seen]
            seen += 1

    async def __aiter__(self) -> AsyncIterator[str]:
        seen = 0
        while True:
            await self._signal.wait_for_async(lambda: len(self._pieces) > seen or self.done)  # noqa: B023
            if seen == len(self._pieces):
                self._result()
                return
            yield self._pieces[seen]
            seen += 1

    def __await__(self) -> Generator[Any, None, str]:
        yield from self._signal.wait_for_async(lambda: self.done).__await__()
        return self._result()

    def _result(self) -> str:
        if self.error is not None:
            raise self.error
        return self.so_far

    # The engine's side.

    def start(self, as_of: float, spans: list[tuple[float, float]]) -> None:
        """The snapshot is taken."""
        with self._signal.changing():
            self.as_of = self.seen_until = as_of
            if self.asked_at is None:
                self.asked_at = as_of
            self.evidence = tuple(spans)
            self.status = "writing"
            self._started = self._clock()

    def remember(self, recalled: Recalled, in_view: tuple[Glimpse, ...]) -> None:
        """This was brought back from memory before it was written, to be seen besides the window."""
        with self._signal.changing():
            self.recalled, self.recall_cost, self.in_view = recalled.moments, recalled.cost, in_view
            self.unreadable = recalled.unreadable
            self.tokens_recalled = max(map(len, recalled.layers), default=0)

    def write(self, piece: str, tokens: int) -> None:
        """That many tokens more, and the text they completed, which may be empty."""
        with self._signal.changing():
            self.tokens += tokens
            if self.ttft_s is None:
                self.ttft_s = self._clock() - self._started
            if piece:
                self._pieces.append(piece)

    def finish(self, status: Status, error: Exception | None = None) -> None:
        """The end; only the first call counts."""
        with self._signal.changing():
            if self.done:
                return
            if status == "cancelled":
                error = ReaderCancelled(f"the answer to {self.question!r} was cancelled")
            self.status, self.error = status, error
