"""A training run of the embedded model as data: the TOML file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamvlm.settings import Live
from streamvlm.train.architecture import Shape
from streamvlm.train.clips import ClipSpec
from streamvlm.train.episodes import SCENES, Recipe
from streamvlm.train.run import Run, read_toml, take_run
from streamvlm.train.weights import Weights
from streamvlm.world.kinds import KINDS

RECIPE = "tiny"
OUT = "runs/tiny"


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum with its own sequences and its own learning-rate curve."""

    name: str
    steps: int
    episodes: int  # sequences in a batch
    window: tuple[int, int]  # frames after the sink, drawn evenly from this range for every batch
    questions: tuple[int, int]  # per sequence at the two ends of `window`; (0, 0) trains the vision tower alone
    lr: float
    cuts: float = 0.5  # share of batches from clips in which every frame is a new scene
    warmup: int = 100  # steps
    final: float = 0.03  # of `lr`, what the cosine ends at
    decay: int = 0  # steps the cosine spans; 0 is the stage's own, more leaves it before its end
    auxiliary: float = 1.0  # weight of the token-naming loss; 0 freezes the vision tower as well
    unsteady: float = 0.0  # share of frames displaced, and of frames darkened, while the vision tower trains
    telling: float = 0.0  # weight of the loss that makes frames tell what is happening in them
    pointing: float = 0.0  # weight of the loss that makes questions point at the frames that answer them
    kinds: Mapping[str, float] = field(default_factory=lambda: SCENES)  # kind of question to how often it is asked
    recall: float = 0.0  # share of sequences with frames brought back from earlier
    options: float = 0.0  # share of questions that offer lettered answers
    dropping: float = 0.0  # share of sequences without the vision tokens that a pruner would drop
    reminded: float = 0.0  # share of questions with earlier notes before them that do not matter
    live: float = 0.0  # share of questions whose answer sees the frames that come while it is written, group-decoupled

    def __post_init__(self) -> None:
        if self.steps < 1 or self.episodes < 1 or not 0 <= self.window[0] <= self.window[1]:
            raise ValueError(f"a stage needs steps, episodes and a window (fewest, most), got {self}")
        unknown = set(self.kinds) - {*KINDS, "note", "noted"}
        if unknown or not self.kinds:
            raise ValueError(f"unknown kinds of question {sorted(unknown)}; kinds are {[*KINDS, 'note', 'noted']}")
        for name, share in (("cuts", self.cuts), ("live", self.live)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share in 0..1, got {share}")

    @property
    def weights(self) -> Weights:
        """How much the losses beside that of the answers count."""
        return Weights(self.auxiliary, self.pointing, self.telling)

    @property
    def recipe(self) -> Recipe:
        """What its questions are about."""
        return Recipe(self.kinds, self.recall, self.options, self.dropping, self.reminded, live=self.live)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run depends on."""

    stages: tuple[Stage, ...]
    cuts: ClipSpec
    slow: ClipSpec
    validation: ClipSpec
    run: Run = field(default_factory=lambda: Run(Path(OUT)))
    shape: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a plan needs at least one [[stage]]")
        trained = {(c.first_seed, c.first_seed + c.clips) for c in (self.cuts, self.slow)}
        low, high = self.validation.first_seed, self.validation.first_seed + self.validation.clips
        if any(low < stop and start < high for start, stop in trained):
            raise ValueError(f"validation seeds {low}..{high} overlap training seeds {sorted(trained)}")

    @property
    def live(self) -> tuple[Live, ...]:
        """The schemes of live answers that it trains."""
        return ("group_decoupled",) if any(stage.live for stage in self.stages) else ()


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ValueError: the file is not TOML, lacks a table, or holds an unknown or impossible setting.
    """
    data = read_toml(path)
    try:
        if data.get("init") is not None and "model" in data:
            raise ValueError("init brings its own sizes: leave out [model]")
        data.pop("recipe", None)
        run = take_run(data, OUT)
        stages = tuple(Stage(**_tuples(stage)) for stage in data.pop("stage"))
        clips: dict[str, Any] = {name: ClipSpec(**table) for name, table in data.pop("clips").items()}
        return Plan(stages=stages, run=run, shape=Shape(**data.pop("model", {})), **clips, **data)
    except KeyError as error:
        raise ValueError(f"{path}: there is no {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
