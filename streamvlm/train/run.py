"""What every training run has, whatever it trains."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PRECISIONS = ("auto", "no", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of the loop: the top-level keys of a plan."""

    out: Path  # the run's folder: checkpoint, metrics, curves and the exported model
    seed: int = 0
    init: str | None = None  # a folder with weights to begin from instead of random ones
    threads: int = 0  # of each process on a CPU; 0 leaves the choice to torch
    device: str = "auto"  # or cpu
    mixed_precision: str = "auto"  # or no, bf16, fp16; the weights themselves stay in their own type
    micro_batches: int = 1  # a step's gradient is the mean over this many batches, shared out among the processes
    weight_decay: float = 0.02
    clip: float = 1.0  # largest norm of a step's gradient
    checkpoint_every: int = 250  # steps
    log_every: int = 25
    validate_every: int = 250

    def __post_init__(self) -> None:
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(f"mixed_precision={self.mixed_precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.device not in ("auto", "cpu"):
            raise ValueError(f"device={self.device!r} is not one of auto, cpu")
        for name in ("micro_batches", "checkpoint_every", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in 0..{2**31 - 1}, got {self.seed}")
        if self.threads < 0 or self.clip <= 0:
            raise ValueError(f"threads must be 0 or more and clip positive, got {self.threads} and {self.clip}")
        if self.init is not None and not Path(self.init).is_dir():
            raise ValueError(f"init={self.init!r}: there is no such folder")


def read_toml(path: Path) -> dict[str, Any]:
    """A plan's content.

    Raises:
        ValueError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def take_run(data: dict[str, Any], out: str) -> Run:
    """Take the loop's settings out of a plan's content; `out` is the folder of a plan that names none."""
    given = {field.name: data.pop(field.name) for field in fields(Run) if field.name in data}
    return Run(**{**given, "out": Path(given.get("out", out))})
