"""Instruments: the last minutes of a run in numbers, one sample a second."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass

from streamvlm import FramePerceived, FramesDropped, StreamStats

KEPT = 120  # samples


@dataclass(frozen=True, slots=True)
class Sample:
    """One second."""

    lag_ms: float | None  # longest time from capture to the cache; None when nothing was perceived
    fps_in: float  # frames a second handed to the engine
    fps_perceived: float
    step_ms: float | None  # longest forward pass that committed a frame
    tokens_kept: int  # rows written into the cache for frames
    dropped: int  # frames pushed out by newer ones
    window: int  # tokens visible to new questions
    answers: int  # slots of answers and of what they keep alive
    capacity: int  # slots
    stored: int  # tokens evicted to disk so far
    lost: int  # tokens evicted and not stored so far


class Instruments:
    """Fed by a run's events from one thread, read from any."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self.made = 0  # samples so far, those forgotten included
        self._window = 0
        self._used = 0
        self._lock = threading.Lock()
        self._at = 0.0  # seconds of the monotonic clock
        self._taken = 0
        self._clear()

    def _clear(self) -> None:
        self._frames = 0
        self._tokens = 0
        self._dropped = 0
        self._lags: list[float] = []
        self._steps: list[float] = []

    def perceived(self, event: FramePerceived) -> None:
        """A frame is in the cache."""
        with self._lock:
            self._frames += event.frames
            self._tokens += event.tokens
            self._steps.append(event.step_seconds)
            if event.lag is not None:
                self._lags.append(event.lag)
            self._window, self._used = event.window_tokens, event.slots_used

    def dropped(self, event: FramesDropped) -> None:
        """Frames never made it."""
        with self._lock:
            self._dropped += event.frames

    def sample(self, now: float, taken: int, stats: StreamStats) -> bool:
        """Close the current second if it is over; whether there is a new sample."""
        with self._lock:
            span = now - self._at
            if span < 1.0:
                return False
            if self._at > 0.0:
                self.samples.append(self._sample(span, taken, stats))
                self.made += 1
            self._at, self._taken = now, taken
            self._clear()
            return True

    def _sample(self, span: float, taken: int, stats: StreamStats) -> Sample:
        return Sample(
            lag_ms=round(1000 * max(self._lags), 1) if self._lags else None,
            fps_in=round((taken - self._taken) / span, 2),
            fps_perceived=round(self._frames / span, 2),
            step_ms=round(1000 * max(self._steps), 2) if self._steps else None,
            tokens_kept=self._tokens,
            dropped=self._dropped,
            window=self._window,
            answers=max(0, self._used - self._window),
            capacity=stats.capacity,
            stored=stats.tokens_stored,
            lost=stats.tokens_dropped,
        )

    def rows(self, last: int = KEPT) -> list[dict[str, float | None]]:
        """The newest samples, oldest first."""
        with self._lock:
            return [asdict(sample) for sample in list(self.samples)[-last:]]
