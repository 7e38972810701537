"""The training loop, on accelerate: one process or many, a CPU or GPUs, resumed to the step after a kill.

What is trained, and on what, is a `Course`. The loop owns the optimiser, the count of steps and the checkpoint. A
step's batches are a function of the seed and the step alone, and so are the weights: a run that was interrupted
ends with the same ones, bit for bit, as a run that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType
from torch import Tensor, nn

from streamvlm.train.checkpoint import Checkpoint, load_weights, read_checkpoint, trained, write_checkpoint
from streamvlm.train.curves import draw_curves
from streamvlm.train.journal import Journal, Pace, flat
from streamvlm.train.run import Run

log = logging.getLogger(__name__)

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """One forward and backward pass; a step is the mean of several, by weight."""

    inputs: tuple[Any, ...]  # what the learner's forward takes
    weight: float  # of its loss in the step's: how much there is to learn in it


class Course(Protocol):
    """What a run trains, and on what."""

    @property
    def learner(self) -> nn.Module:
        """Everything with weights; its forward gives scalar losses by name, "loss" the one to make smaller."""

    @property
    def steps(self) -> int:
        """Steps of the whole course."""

    def stage(self, step: int) -> str:
        """The name of the part of the course that a step belongs to."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""

    def batch(self, step: int, index: int) -> MicroBatch:
        """The step's micro-batch number `index`: a function of seed, step and index."""

    def validate(self, step: int) -> Mapping[str, float]:
        """Scores on what is never trained on, by name, the telling one first; none where nothing is held out."""

    def export(self, folder: Path) -> None:
        """Write a folder that `--model` accepts."""


def precision(run: Run) -> str:
    """What matrices are multiplied in. `auto` is bfloat16, but float32 on a CPU for which torch has no fast kernels:
    there it would be sixty times slower.
    """
    if run.mixed_precision != "auto":
        return run.mixed_precision
    if run.device == "cpu" or not torch.accelerator.is_available():
        fast = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # None where torch was built without oneDNN
        return "bf16" if fast is not None and fast() else "no"
    return "bf16"


def open_accelerator(run: Run) -> Accelerator:
    """The processes and devices of this run, and torch's seed, for the weights that begin at random.

    Raises:
        ValueError: it was launched in a way that this loop does not support.
    """
    torch.manual_seed(run.seed)
    if run.threads:
        torch.set_num_threads(run.threads)
    # A stage may leave the vision tower or a head out of its loss.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    cpu = run.device == "cpu"
    accelerator = Accelerator(mixed_precision=precision(run), cpu=cpu, kwargs_handlers=[unused])
    if accelerator.distributed_type not in _REPLICATED:
        raise ValueError(f"launched as {accelerator.distributed_type.value}; supported are one process and plain DDP")
    if run.micro_batches % accelerator.num_processes:
        raise ValueError(
            f"micro_batches={run.micro_batches} cannot be shared by {accelerator.num_processes} processes: "
            "make it a multiple of their number"
        )
    return accelerator


class Trainer:
    """Owns the weights, the optimiser and the step count of one run."""

    def __init__(self, course: Course, run: Run, accelerator: Accelerator) -> None:
        self.course = course
        self.run_settings = run
        self.accelerator = accelerator
        self.step = 0
        optimizer = torch.optim.AdamW(_groups(course.learner, run.weight_decay), betas=(0.9, 0.98))
        self._learner, self._optimizer = accelerator.prepare(course.learner, optimizer)
        self._journal, self._pace = Journal(run.out / "metrics.jsonl"), Pace()
        self._sums: dict[str, Tensor] = {}  # losses since they were last logged
        self._summed = 0

    @property
    def checkpoint(self) -> Path:
        """Where the run resumes from."""
        return self.run_settings.out / "checkpoint.pt"

    @property
    def model_folder(self) -> Path:
        """Where the trained model lands."""
        return self.run_settings.out / "model"

    def run(self, until: int | None = None) -> None:
        """Train from the current step to the end of the course, or to step `until`."""
        last = self.course.steps if until is None else min(until, self.course.steps)
        if self.accelerator.is_main_process:
            self._journal.rewind(self.step)
        self._pace.tick()
        while self.step < last:
            self._step()
            self._pace.tick()
            self._report()
        self.save()
        if self.step == self.course.steps and self.accelerator.is_main_process:
            self.course.export(self.model_folder)
        self.accelerator.wait_for_everyone()

    def _step(self) -> None:
        accelerator, course = self.accelerator, self.course
        torch.manual_seed((self.run_settings.seed << 32) + (self.step << 8) + accelerator.process_index)
        for group in self._optimizer.param_groups:
            group["lr"] = course.rate(self.step)
        course.learner.train()
        with accelerator.autocast():
            mine = range(accelerator.process_index, self.run_settings.micro_batches, accelerator.num_processes)
            batches = [course.batch(self.step, index) for index in mine]
        whole = self._total(sum(b.weight for b in batches))
        for batch in batches:
            with self._gathering(last=batch is batches[-1]):
                self._backward(batch, batch.weight / whole if whole else 0.0)
        accelerator.clip_grad_norm_(self._learner.parameters(), self.run_settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self._summed += 1

    def _gathering(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange their gradients once a step, in its last backward pass."""
        context: AbstractContextManager[Any] = nullcontext() if last else self.accelerator.no_sync(self._learner)
        return context

    def _backward(self, batch: MicroBatch, share: float) -> None:
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = self._learner(*batch.inputs)
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss.detach() * share
        # Processes average their gradients; this makes it a sum.
        self.accelerator.backward(losses["loss"] * (share * self.accelerator.num_processes))

    def _total(self, mine: float) -> float:
        if self.accelerator.num_processes == 1:
            return mine
        total = torch.tensor(mine, dtype=torch.float32, device=self.accelerator.device)
        return float(self.accelerator.reduce(total, "sum"))

    def _report(self) -> None:
        run, done = self.run_settings, self.step == self.course.steps
        if self.step % run.log_every == 0 or done or self.course.stage(self.step) != self.course.stage(self.step - 1):
            self._log_losses()  # a stage has its own losses
        if self.step % run.validate_every == 0 or done:
            self._log_validation()
        if self.step % run.checkpoint_every == 0:
            self.save()

    def _log_losses(self) -> None:
        names = sorted(self._sums)
        means = torch.stack([self._sums[name].float() for name in names]) / self._summed
        values = self.accelerator.reduce(means, "sum").tolist()
        self._sums, self._summed = {}, 0
        losses, stage = dict(zip(names, values, strict=True)), self.course.stage(self.step - 1)
        if not self.accelerator.is_main_process:
            return
        rate, left = self.course.rate(self.step - 1), self._pace.left(self.course.steps - self.step)
        share, each = self.step / self.course.steps, self._pace.seconds
        self._journal.add(step=self.step, stage=stage, **losses, lr=rate, seconds=round(each, 4))
        where = f"{stage}: step {self.step} of {self.course.steps} ({share:.0%})"
        log.info("%s, %s, %.2f s a step, about %s left", where, flat(losses), each, left)
        if not math.isfinite(losses["loss"]):
            log.warning("the loss is %s: lower lr, or train without mixed precision", losses["loss"])

    def _log_validation(self) -> None:
        scores = self.validate()
        if self.accelerator.is_main_process:
            if scores:
                self._journal.add(step=self.step, stage=self.course.stage(self.step - 1), validation=dict(scores))
                log.info("step %d validation: %s", self.step, flat(scores))
            draw_curves(self._journal.read(), self.run_settings.out / "curves.svg")

    def validate(self) -> Mapping[str, float]:
        """The course's scores; every process computes them all, so that none waits for another."""
        self.course.learner.eval()
        with self.accelerator.autocast(), torch.no_grad():
            return self.course.validate(max(0, self.step - 1))

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the previous one."""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = self._optimizer.state_dict()
            scale = {} if scaler is None else scaler.state_dict()
            weights = trained(self.course.learner)
            write_checkpoint(self.checkpoint, Checkpoint(self.step, str(self.course), weights, state, scale))
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one.

        Raises:
            TrainingError: it is damaged or of another model.
        """
        saved = read_checkpoint(self.checkpoint)
        if saved is None:
            return
        load_weights(self.course.learner, saved.weights, self.checkpoint)
        self._optimizer.load_state_dict(saved.optimizer)
        if saved.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.scaler)
        self.step = saved.step
        if saved.course != str(self.course):
            log.warning("the plan has changed since the checkpoint of step %d was written", self.step)
        log.info("resumed at step %d of %d", self.step, self.course.steps)


def _groups(learner: nn.Module, decay: float) -> list[dict[str, Any]]:
    weights = [p for p in learner.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in learner.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
