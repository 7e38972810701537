"""Training runs small enough for tests."""

from __future__ import annotations

from pathlib import Path

from accelerate.state import AcceleratorState

from streamvlm.train.architecture import Shape
from streamvlm.train.clips import ClipSpec
from streamvlm.train.curriculum import Curriculum
from streamvlm.train.loop import Trainer, open_accelerator
from streamvlm.train.plan import Plan, Stage
from streamvlm.train.run import Run

MICRO = Shape(
    vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=64, heads=2, kv_heads=1,
    head_dim=16,
)  # fmt: skip


def specs() -> dict[str, ClipSpec]:
    """A handful of short clips."""
    return {
        "cuts": ClipSpec("cuts", 100, 2, 8, 2),
        "slow": ClipSpec("slow", 200, 2, 12, 4),
        "validation": ClipSpec("slow", 300, 1, 12, 4),
    }


def micro_run(out: Path, **settings: object) -> Run:
    """The settings of a run in float32 on one thread."""
    fixed: dict[str, object] = {"threads": 1, "device": "cpu", "mixed_precision": "no"}
    return Run(out, **{**fixed, **settings})  # type: ignore[arg-type]


def micro_plan(out: Path, **settings: object) -> Plan:
    """Six steps with the vision tower, then six with its features remembered."""
    scenes = Stage("scenes", 6, 2, (0, 1), (3, 4), 3e-3, warmup=2)
    streams = Stage("streams", 6, 1, (2, 4), (3, 4), 1e-3, warmup=2, auxiliary=0.0)
    return Plan((scenes, streams), **specs(), run=micro_run(out, **settings), shape=MICRO)


def open_micro(out: Path, **settings: object) -> Trainer:
    """A trainer of the micro plan, resumed from what is in `out`."""
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps it for the whole process
    plan = micro_plan(out, **settings)
    accelerator = open_accelerator(plan.run)
    trainer = Trainer(Curriculum(plan, accelerator.device), plan.run, accelerator)
    trainer.resume()
    return trainer
