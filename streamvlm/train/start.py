"""From a plan's file to a trainer that is ready to run."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch

from streamvlm.train.curriculum import Curriculum
from streamvlm.train.finetune import Finetune
from streamvlm.train.finetune_plan import RECIPE as FINETUNE
from streamvlm.train.finetune_plan import FinetunePlan, load_finetune_plan
from streamvlm.train.loop import Course, Trainer, open_accelerator
from streamvlm.train.plan import RECIPE, Plan, load_plan
from streamvlm.train.run import Run, read_toml

log = logging.getLogger(__name__)

_WRITTEN = ("checkpoint.pt", "checkpoint.partial", "metrics.jsonl", "curves.svg", "left_out.txt")


def open_trainer(config: Path, *, restart: bool = False) -> Trainer:
    """Read a plan, build what it trains and continue from its checkpoint, or from none if it is to `restart`.

    Raises:
        ValueError: the plan is wrong.
        ModelError: the model it begins from cannot be loaded.
        TrainingError: the checkpoint is damaged or of another model, or the data cannot be used.
    """
    plan = _load(config)
    accelerator = open_accelerator(plan.run)
    if not accelerator.is_main_process:
        logging.getLogger("streamvlm.train").setLevel(logging.WARNING)
    with accelerator.main_process_first():
        if restart and accelerator.is_main_process:
            forget(plan.run)
        course = _course(plan, accelerator.device)
    trainer = Trainer(course, plan.run, accelerator)
    trainer.resume()
    return trainer


def _load(config: Path) -> Plan | FinetunePlan:
    recipe = read_toml(config).get("recipe", RECIPE)
    if recipe == FINETUNE:
        return load_finetune_plan(config)
    if recipe == RECIPE:
        return load_plan(config)
    raise ValueError(f"{config}: recipe={recipe!r} is not one of {RECIPE}, {FINETUNE}")


def _course(plan: Plan | FinetunePlan, device: torch.device) -> Course:
    if isinstance(plan, FinetunePlan):
        return Finetune(plan, device)
    return Curriculum(plan, device)


def forget(run: Run) -> None:
    """Remove what a run wrote into its folder."""
    shutil.rmtree(run.out / "model", ignore_errors=True)  # with its tokenizer
    for name in _WRITTEN:
        (run.out / name).unlink(missing_ok=True)
