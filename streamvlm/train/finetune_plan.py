"""A fine-tuning run as data: the TOML file, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm.train.conversations import ChunkSpec
from streamvlm.train.method import Method
from streamvlm.train.readers import ReadSpec
from streamvlm.train.run import Run, read_toml, take_run

RECIPE = "finetune"
OUT = "runs/finetune"


@dataclass(frozen=True, slots=True)
class Data:
    """What is learnt from."""

    train: tuple[Path, ...]  # files of JSON lines
    validation: tuple[Path, ...] = ()  # more of them; without any, the share below of the conversations is held out
    held_out: float = 0.02
    validation_chunks: int = 200  # that are scored at most
    videos: Path = Path()  # the folder that videos are named from
    fps: float = 2.0  # as it will be watched
    chunk_seconds: float = 16.0  # no more than the window it will be watched with
    overlap_seconds: float = 8.0
    tick_seconds: float = 1.0  # between two decisions to speak or to stay silent
    own_query: bool = False  # ask for commentary in the file's words instead of the engine's
    history_seconds: float = 0.0  # of its earlier commentary that are repeated to the reader; the engine repeats none
    balance: bool = True  # speaking and staying silent weigh the same in all, however rare one is
    most_bad: float = 0.1  # the share of lines that may be unusable before the run refuses to start
    workers: int = 2  # threads that read videos ahead

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("[data] needs train = [files of JSON lines]")
        if not 0 < self.fps <= 60 or not 0 <= self.held_out < 1 or not 0 <= self.most_bad < 1:
            raise ValueError(
                "need 0 < fps <= 60, held_out and most_bad in [0, 1), got "
                f"{self.fps}, {self.held_out} and {self.most_bad}"
            )
        if self.workers < 1 or self.validation_chunks < 1:
            raise ValueError(
                f"need workers and validation_chunks >= 1, got {self.workers} and {self.validation_chunks}"
            )

    @property
    def reading(self) -> ReadSpec:
        """How files become turns."""
        return ReadSpec(self.videos, self.tick_seconds, self.own_query, self.history_seconds)

    @property
    def chunks(self) -> ChunkSpec:
        """How conversations are cut."""
        return ChunkSpec(self.chunk_seconds, self.overlap_seconds)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, and how fast."""

    epochs: float = 1.0
    steps: int = 0  # instead of epochs
    chunks: int = 1  # in a micro-batch
    lr: float = 1e-5
    warmup: int = 20  # steps
    final: float = 0.1  # of `lr`, what the cosine ends at

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.steps < 0 or self.chunks < 1 or self.lr <= 0 or self.warmup < 0:
            raise ValueError(f"need epochs > 0, steps >= 0, chunks >= 1, lr > 0 and warmup >= 0, got {self}")


@dataclass(frozen=True, slots=True)
class FinetunePlan:
    """Everything a run depends on."""

    model: str  # a hub id or a folder, as --model takes it
    data: Data
    run: Run
    method: Method
    schedule: Schedule
    min_pixels: int | None = None  # of a frame, as --min-pixels
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.run.init is not None:
            raise ValueError("model names the weights to begin from: leave out init")


def load_finetune_plan(path: Path) -> FinetunePlan:
    """Read a plan; files in it are named from its own folder.

    Raises:
        ValueError: the file is not TOML, lacks a table, or holds an unknown or impossible setting.
    """
    content = read_toml(path)
    try:
        content.pop("recipe", None)
        run = take_run(content, OUT)
        data = _data(content.pop("data"), path.parent)
        method, schedule = Method(**content.pop("method", {})), Schedule(**content.pop("schedule", {}))
        return FinetunePlan(data=data, run=run, method=method, schedule=schedule, **content)
    except KeyError as error:
        raise ValueError(f"{path}: there is no {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _data(table: dict[str, Any], folder: Path) -> Data:
    def files(names: Any) -> tuple[Path, ...]:  # noqa: ANN401
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"train and validation are lists of files, got {names!r}")
        return tuple(folder / name for name in names)

    train, validation = files(table.pop("train", [])), files(table.pop("validation", []))
    return Data(train, validation, videos=folder / str(table.pop("videos", ".")), **table)
