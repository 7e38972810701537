"""The training loop: stages, checkpoints a killed run resumes from to the step, and the exported model."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamvlm.train.architecture import export, new_model
from streamvlm.train.clips import Clips, ClipSpec, load_clips
from streamvlm.train.episodes import make_episode
from streamvlm.train.learner import Features, Learner, Losses, Score
from streamvlm.train.packing import Batch, Packer
from streamvlm.train.plan import Plan, Stage

log = logging.getLogger(__name__)

_VALIDATION_WINDOWS = (0, 1, 3, 7, 15, 31)


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """The clips of a run."""

    cuts: Clips
    slow: Clips
    validation: Clips


class Trainer:
    """Owns the weights, the optimiser and the step count of one run."""

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(plan.threads)
        self.plan = plan
        self.step = 0
        self.model = new_model(plan.shape, plan.seed, plan.out / "model")
        self.learner = Learner(self.model, plan.bfloat16)
        self.packer = Packer(self.model)
        cache = plan.out.parent / "cache"
        self.footage = Footage(*(load_clips(c, cache) for c in (plan.cuts, plan.slow, plan.validation)))
        self._seen: dict[ClipSpec, Features] = {}  # filled by stages that leave the vision tower as it is
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98))

    @property
    def checkpoint(self) -> Path:
        """Where the run resumes from."""
        return self.plan.out / "checkpoint.pt"

    def _groups(self) -> list[dict[str, Any]]:
        weights = [p for p in self.learner.parameters() if p.ndim > 1]
        rest = [p for p in self.learner.parameters() if p.ndim <= 1]
        decay = self.plan.weight_decay
        return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]

    def run(self, until: int | None = None) -> None:
        """Train from the current step to the end of the plan, or to step `until`."""
        first = 0
        for stage in self.plan.stages:
            stop = first + stage.steps
            while self.step < min(stop, stop if until is None else until):
                self._step(stage, self.step - first)
            first = stop
        self.save()
        export(self.model, self.plan.out / "model")

    def _step(self, stage: Stage, index: int) -> None:
        began = time.monotonic()
        batch, clips = self._batch(stage)
        self.learner.train()
        losses = self._losses(batch, clips, frozen=stage.auxiliary == 0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(stage, index)
        self.optimizer.zero_grad()
        total = losses.answer + stage.auxiliary * losses.naming
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        if self.step % self.plan.log_every == 0:
            took = time.monotonic() - began
            values = (stage.name, self.step, losses.answer.item(), losses.naming.item(), took)
            log.info("%s step %d: answer %.4f naming %.4f, %.2f s", *values)
        if self.step % self.plan.validate_every == 0:
            log.info("step %d validation: %s", self.step, summary(self.validate(stage)))
        if self.step % self.plan.checkpoint_every == 0:
            self.save()

    def _losses(self, batch: Batch, clips: Clips, frozen: bool) -> Losses:
        clip, frame = batch.where
        if not frozen:
            seen = self.learner.see(clips.frames[clip, frame])
            return self.learner.losses(batch, seen, clips.labels[clip, frame])
        if clips.spec not in self._seen:
            log.info("running the vision tower over %s", clips.spec.name)
            self._seen[clips.spec] = self.learner.remember(clips.frames.flatten(0, 1))
        return self.learner.losses(batch, self._seen[clips.spec][clip * clips.spec.frames + frame], None)

    def _batch(self, stage: Stage) -> tuple[Batch, Clips]:
        """The batch of the current step: a function of the seed and the step alone, so that resuming is exact."""
        rng = random.Random(f"{self.plan.seed}/{self.step}")
        clips = self.footage.cuts if rng.random() < stage.cuts else self.footage.slow
        low, high = stage.window
        window = rng.randint(low, high)
        share = (window - low) / max(1, high - low)
        questions = round(stage.questions[0] + share * (stage.questions[1] - stage.questions[0]))
        # Short sequences fill the batch with more episodes, so that steps cost about the same.
        count = max(stage.episodes, round(stage.episodes * (high + 2) / (window + 2) / 2))
        episodes = [make_episode(clips, window, questions, rng) for _ in range(count)]
        return self.packer.batch(episodes), clips

    def validate(self, stage: Stage) -> Score:
        """Right and asked per task on streams never trained on."""
        clips, rng = self.footage.validation, random.Random("validation")
        windows = [w for w in _VALIDATION_WINDOWS if w <= stage.window[1]]
        batches = []
        for window in windows:
            episodes = [make_episode(clips, window, 6 + window // 2, rng) for _ in range(48 // (window + 4))]
            batches.append(self.packer.batch(episodes))
        self.learner.eval()
        return self.learner.accuracy(batches, clips)

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the previous one."""
        state = {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint)
            self.step = state["step"]
            self.learner.load_state_dict(state["learner"])
            self.optimizer.load_state_dict(state["optimizer"])
            log.info("resumed at step %d", self.step)


def learning_rate(stage: Stage, index: int) -> float:
    """Linear warm-up, then a cosine down to `final`."""
    if index < stage.warmup:
        return stage.lr * (index + 1) / stage.warmup
    done = (index - stage.warmup) / max(1, (stage.decay or stage.steps) - stage.warmup)
    return stage.lr * (stage.final + (1 - stage.final) * 0.5 * (1 + math.cos(math.pi * done)))


def summary(score: Score) -> str:
    """One line: overall and per-task accuracy."""
    right, asked = (sum(column) for column in zip(*score.values(), strict=True))
    tasks = ", ".join(f"{task} {r / n:.1%} of {n}" for task, (r, n) in sorted(score.items()))
    return f"{right / asked:.2%} of {asked} ({tasks})"
