"""Trace: when each frame was captured, decoded, encoded and committed, each token written, each loss; one JSON object a
line. A thread of its own writes it; what does not fit its queue is counted, never waited for.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamvlm.engine.answer import Answer
from streamvlm.engine.events import (
    AnswerDone,
    AnswerPiece,
    AnswerStarted,
    FramePerceived,
    FramesDropped,
    Gap,
    LoadChanged,
    Narrated,
    NoteTaken,
    RationChanged,
    StreamEvent,
    WatchFired,
)
from streamvlm.types import Frame, VisionTokens

logger = logging.getLogger(__name__)

WAITING = 65536  # lines


class Trace:
    """One stream's trace. Times are seconds since it was opened, by the monotonic clock.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.lost = 0  # lines that did not fit the queue
        self._clock = clock
        self._zero = clock()
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"trace={str(path)!r} cannot be written: {error}") from None
        self._thread = threading.Thread(target=self._write, name="streamvlm-trace", daemon=True)
        self._thread.start()

    def note(self, what: str, **fields: Any) -> None:  # noqa: ANN401
        """One line, as of now; from any thread."""
        try:
            self._lines.put_nowait({"what": what, "t": round(self._clock() - self._zero, 6), **fields})
        except queue.Full:
            self.lost += 1

    def decoded(self, source: Iterable[Frame]) -> Generator[Frame, None, None]:
        """The frames of a source, noted as they come out of it."""
        try:
            for frame in source:
                captured = getattr(frame, "captured", None)
                since = None if captured is None else round(captured - self._zero, 6)
                self.note("decoded", pts=getattr(frame, "pts", None), captured=since)
                yield frame
        finally:
            if isinstance(source, Generator):
                source.close()

    def encoded(self, frames: Sequence[Frame], tokens: VisionTokens) -> None:
        """A patch is through the vision tower."""
        self.note("encoded", pts=frames[-1].pts, frames=len(frames), tokens=len(tokens))

    def event(self, event: StreamEvent) -> None:
        """What a stream says, as far as it belongs here."""
        match event:
            case FramePerceived():
                about = {"lag": event.lag, "step": event.step_seconds, "rows": event.tokens, "batch": event.batch}
                self.note("committed", pts=event.pts, **about)
            case FramesDropped():
                self.note("dropped", pts=event.pts, frames=event.frames)
            case Gap():
                self.note("gap", pts=event.pts, seconds=event.seconds)
            case AnswerStarted() | AnswerDone():
                self.note(event.type, answer=_name(event.answer), status=event.answer.status)
            case AnswerPiece():
                self.note("token", answer=_name(event.answer), text=event.text)
            case WatchFired():
                self.note("watch", pts=event.pts, condition=event.condition, probability=event.probability)
            case Narrated():
                self.note("narration", pts=event.pts, text=event.text)
            case NoteTaken():
                self.note("note", pts=event.note.start, text=event.note.text)
            case LoadChanged() | RationChanged():
                self.note(event.type, **asdict(event))

    def close(self) -> None:
        """Write what is queued."""
        if self.lost:
            logger.warning("%d lines of the trace were lost", self.lost)
        self._lines.put(None)
        self._thread.join()

    def _write(self) -> None:
        with self._file as file:
            for line in iter(self._lines.get, None):
                try:
                    file.write(json.dumps(line) + "\n")
                except OSError as error:  # a full disk is no reason to stop watching
                    self.lost += 1
                    logger.warning("the trace cannot be written: %s", error)


def _name(answer: Answer) -> str:
    return f"{id(answer):x} {answer.question}"


class Traced:
    """A source whose frames are noted; everything else about it is as it was."""

    def __init__(self, source: Iterable[Frame], trace: Trace) -> None:
        self.uri = str(getattr(source, "uri", "source"))
        self._source = source
        self._trace = trace

    def __iter__(self) -> Iterator[Frame]:
        return self._trace.decoded(self._source)

    def close(self) -> None:
        """Close the source."""
        getattr(self._source, "close", lambda: None)()


def traced(source: Iterable[Frame], trace: Trace) -> Iterable[Frame]:
    """`source`, noted; a generator stays one, for only its own thread may close it."""
    return trace.decoded(source) if isinstance(source, Generator) else Traced(source, trace)
