"""What a run writes about itself: metrics.jsonl, one object per line, and how long it will still take."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_RECENT = 200  # steps the pace is taken from


class Journal:
    """Appends to a file that always agrees with the checkpoint: a resumed run first forgets what it will redo."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> int:
        """Keep the lines up to `step`; returns how many were dropped, half-written ones among them."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step(line) <= step]
        partial = self.path.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.path)
        return len(lines) - len(kept)

    def add(self, **values: Any) -> None:  # noqa: ANN401
        """One line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines, in order."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def _step(line: str) -> float:
    """The step a line is about; a line that a kill cut off is about none."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return float("inf")
    return float(record["step"]) if isinstance(record, dict) and "step" in record else float("inf")


class Pace:
    """How long steps take and how long the rest will."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_RECENT + 1)

    def tick(self) -> None:
        """A step has begun or ended."""
        self._ends.append(time.monotonic())

    @property
    def seconds(self) -> float:
        """Mean seconds of the latest steps, validation and checkpoints between them included."""
        return (self._ends[-1] - self._ends[0]) / max(1, len(self._ends) - 1)

    def left(self, steps: int) -> str:
        """How long `steps` more will take, at the pace of the latest: "2 h 05 min"."""
        minutes, seconds = divmod(round(self.seconds * steps), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes:02} min"
        return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def flat(values: Mapping[str, float]) -> str:
    """Numbers on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
