"""The course of the embedded model: rendered clips, cut into episodes, stage after stage."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from streamvlm.train.architecture import export, load_model, new_model
from streamvlm.train.augment import unsteady
from streamvlm.train.clips import Clips, load_clips
from streamvlm.train.episodes import SCENES, Recipe, make_episode, usual
from streamvlm.train.gallery import Features, Gallery
from streamvlm.train.learner import Labels, Learner, Score
from streamvlm.train.loop import MicroBatch, precision
from streamvlm.train.odds import Odds
from streamvlm.train.packing import PADDING, Batch, Happenings, Packer, Pointers
from streamvlm.train.plan import Plan, Stage
from streamvlm.train.schedule import warm_cosine

log = logging.getLogger(__name__)

_VALIDATION_WINDOWS = (0, 1, 3, 7, 15, 31)
Record = TypeVar("Record", Batch, Pointers, Happenings)


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """The clips of a run."""

    cuts: Clips
    slow: Clips
    validation: Clips


class Curriculum:
    """A plan with its footage and its learner. Build it on the main process first: it fills the cache of clips."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        folder, init = plan.run.out / "model", plan.run.init
        self.model = load_model(Path(init)) if init else new_model(plan.shape, plan.run.seed, folder)
        self._learner = Learner(self.model)
        self._packer = Packer(self.model)
        cache = plan.run.out.parent / "cache"
        self.footage = Footage(*(load_clips(c, cache) for c in (plan.cuts, plan.slow, plan.validation)))
        self._device = device
        self._odds: dict[tuple[str, int], Odds] = {}
        self._galleries: dict[str, Gallery] = {}  # what a tower that is at rest has seen

    def __str__(self) -> str:
        """Everything the weights depend on but the number of processes."""
        plan = self.plan
        run = plan.run
        return str(
            (plan.stages, plan.cuts, plan.slow, plan.shape, run.seed, run.init, run.micro_batches, precision(run))
        )

    @property
    def learner(self) -> Learner:
        """The model and its throw-away head."""
        return self._learner

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.plan.stages)

    def stage(self, step: int) -> str:
        """The name of the stage that a step belongs to."""
        return self._at(step)[0].name

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(*self._at(step))

    def _at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and which of its steps it is."""
        for stage in self.plan.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise ValueError(f"step {step + self.steps} is past the end of the plan, which has {self.steps}")

    def batch(self, step: int, index: int) -> MicroBatch:
        """Episodes packed side by side, with the frames they show."""
        stage, _ = self._at(step)
        batch, clips = self._episodes(stage, random.Random(f"{self.plan.run.seed}/{step}/{index}"))
        clip, frame = batch.where
        weight = float((batch.targets != PADDING).sum()) or 1.0
        now, before = clips.labels[clip, frame], clips.labels[clip, batch.before]
        labels = Labels(now.to(self._device), before.to(self._device))
        shown = self._pairs(stage, step, batch, clips) if stage.auxiliary else self._features(batch, clips)
        return MicroBatch((to_device(batch, self._device), shown, labels, stage.weights), weight)

    def _pairs(self, stage: Stage, step: int, batch: Batch, clips: Clips) -> Tensor:
        self._galleries.clear()
        return unsteady(seen_pairs(batch, clips), step, stage.unsteady).to(self._device)

    def _features(self, batch: Batch, clips: Clips) -> Features:
        if clips.spec.name not in self._galleries:
            self._galleries[clips.spec.name] = Gallery(clips.frames)
        gallery = self._galleries[clips.spec.name]
        return gallery.features(lambda pairs: self._learner.see(pairs.to(self._device)), *batch.where, batch.before)

    def _episodes(self, stage: Stage, rng: random.Random) -> tuple[Batch, Clips]:
        clips = self.footage.cuts if rng.random() < stage.cuts else self.footage.slow
        low, high = stage.window
        window = rng.randint(low, high)
        share = (window - low) / max(1, high - low)
        questions = round(stage.questions[0] + share * (stage.questions[1] - stage.questions[0]))
        # Short sequences fill the batch with more episodes, so that steps cost about the same.
        count = max(stage.episodes, round(stage.episodes * (high + 2) / (window + 2) / 2))
        recipe = self._recipe(stage, clips)
        episodes = [make_episode(clips, window, questions, rng, recipe) for _ in range(count)]
        return self._packer.batch(episodes), clips

    def _recipe(self, stage: Stage, clips: Clips) -> Recipe:
        """What the questions on these clips are about, with even answers to those about what happened."""
        if clips.spec.kind != "slow" or set(stage.kinds) <= set(SCENES):
            return stage.recipe
        window = min(stage.window[1], clips.spec.frames // 2)
        key = clips.spec.name, window
        if key not in self._odds:
            self._odds[key] = usual(clips, window)
        return replace(stage.recipe, odds=self._odds[key])

    def validate(self, step: int) -> Mapping[str, float]:
        """Shares answered right on streams never trained on: all, then by task."""
        stage, _ = self._at(step)
        clips, rng = self.footage.validation, random.Random("validation")
        score: dict[str, tuple[int, int]] = {}
        recipe = self._recipe(stage, clips)
        for window in (w for w in _VALIDATION_WINDOWS if w <= stage.window[1]):
            asked, count = 6 + window // 2, 144 // (window + 4)
            episodes = [make_episode(clips, window, asked, rng, recipe) for _ in range(count)]
            for first in range(0, count, 6):
                batch = self._packer.batch(episodes[first : first + 6])
                pairs = seen_pairs(batch, clips).to(self._device)
                _add(score, self.learner.accuracy(to_device(batch, self._device), pairs))
        right, asked = (sum(column) for column in zip(*score.values(), strict=True))
        return {"accuracy": right / asked} | {task: r / n for task, (r, n) in sorted(score.items())}

    def export(self, folder: Path) -> None:
        """A folder that `--model` accepts."""
        export(self.model, folder, self.plan.live)


def seen_pairs(batch: Batch, clips: Clips) -> Tensor:
    """uint8 [frames, 2, 3, side, side] every frame of a batch after the one before it."""
    clip, frame = batch.where
    return torch.stack((clips.frames[clip, batch.before], clips.frames[clip, frame]), dim=1)


def _add(score: dict[str, tuple[int, int]], more: Score) -> None:
    for task, (right, asked) in more.items():
        before = score.get(task, (0, 0))
        score[task] = (before[0] + right, before[1] + asked)


def to_device(batch: Record, device: torch.device) -> Record:
    """A record with its tensors, and those of the records in it, on `device`."""
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    moved: dict[str, Any] = {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)}
    moved |= {name: to_device(part, device) for name, part in parts.items() if isinstance(part, Pointers)}
    moved |= {name: to_device(part, device) for name, part in parts.items() if isinstance(part, Happenings)}
    return replace(batch, **moved)


def learning_rate(stage: Stage, index: int) -> float:
    """Linear warm-up, then a cosine down to `final`."""
    return warm_cosine(index, stage.lr, stage.warmup, stage.decay or stage.steps, stage.final)
