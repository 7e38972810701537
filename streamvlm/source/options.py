"""How a source is opened, how long it may stay silent, and when it is given up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event

BACKENDS = ("pyav", "decord")


class Clock:
    """The monotonic clock a source paces and times itself by; tests put in their own."""

    def now(self) -> float:
        """Seconds on the clock of `time.monotonic()`."""
        return time.monotonic()

    def wait(self, seconds: float, cancelled: Event) -> bool:
        """Wait that long, or less when `cancelled` is set; says whether it is set."""
        return cancelled.wait(max(seconds, 0.0))


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try a lost live source again."""

    initial: float = 0.5  # seconds before the first attempt
    factor: float = 2.0  # each delay over the one before
    longest: float = 30.0  # seconds
    attempts: int | None = 10  # failed attempts in a row before giving up; None never gives up

    def __post_init__(self) -> None:
        if self.initial < 0 or self.longest < self.initial:
            raise ValueError(f"back-off needs 0 <= initial <= longest, got {self.initial}, {self.longest}")
        if self.factor < 1:
            raise ValueError(f"back-off factor must be at least 1, got {self.factor}")
        if self.attempts is not None and self.attempts < 0:
            raise ValueError(f"back-off attempts must be None or at least 0, got {self.attempts}")

    def delay(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt`, counted from 0."""
        if self.initial == 0:
            return 0.0
        # Past 2**64 every delay is the longest; the bound keeps a camera that is off for weeks from overflowing.
        return min(self.initial * self.factor ** min(attempt, 64), self.longest)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Everything about reading a source that is not its address or its frame rate."""

    backend: str = "pyav"  # "decord" reads local MP4 and MKV files only
    open_timeout: float = 10.0  # seconds until a source must have answered
    read_timeout: float = 10.0  # seconds a source may be silent; also how long close() may take to unblock a reader
    max_broken: int = 300  # packets in a row that cannot be read before the source is given up
    backoff: Backoff = field(default_factory=Backoff)
    listen: bool = False  # RTSP only: wait for the camera to connect to us and publish
    clock: Clock = field(default_factory=Clock)
    workers: int = 1  # threads that decode a local MP4 or Matroska file, each a stretch between keyframes
    ahead_bytes: int = 512 << 20  # of pictures that those may hold ready
    follow: bool = True  # HTTP only: go where a redirect or a playlist leads; False refuses both

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.open_timeout <= 0 or self.read_timeout <= 0:
            raise ValueError(f"timeouts must be positive, got {self.open_timeout} and {self.read_timeout}")
        if self.workers < 1 or self.ahead_bytes < 1:
            raise ValueError(f"workers and ahead_bytes must be at least 1, got {self.workers} and {self.ahead_bytes}")
        if self.max_broken < 1:
            raise ValueError(f"max_broken must be at least 1, got {self.max_broken}")
