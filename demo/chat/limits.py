"""What one visitor, and all of them together, may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of the chat; every one of them has a message that names it."""

    visitors: int = 4  # sessions awake at the same time
    questions: int = 6  # of one visitor, not answered yet
    question_chars: int = 2000
    watches: int = 8  # of one visitor, not over yet
    upload_mb: float = 200.0  # MiB
    upload_seconds: float = 4 * 3600.0  # length of an uploaded video
    pixels: int = 3840 * 2160  # of one picture, uploaded or from a camera
    frame_kb: float = 1024.0  # KiB, one picture of a camera
    store_mb: int = 2048  # MiB of keys and values kept per watched stream; the oldest go first
    idle_minutes: float = 20.0  # without a page open, after which a session is put away
    retention_days: float = 7.0  # after which a session that was not used is deleted with all it holds

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be greater than 0 and finite, got {value!r}")

    @property
    def upload_bytes(self) -> int:
        """The largest upload."""
        return int(self.upload_mb * MEBIBYTE)

    @property
    def frame_bytes(self) -> int:
        """The largest picture of a camera, coded."""
        return int(self.frame_kb * 1024)
