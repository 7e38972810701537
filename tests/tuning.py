"""Fine-tuning runs small enough for tests: two short videos with commentary and a checkpoint of every family."""

from __future__ import annotations

from pathlib import Path

from accelerate.state import AcceleratorState
from families import FAMILIES, random_model
from talks import commentary, small_video, write_lines

from streamvlm.train.finetune import Finetune
from streamvlm.train.finetune_plan import load_finetune_plan
from streamvlm.train.loop import Trainer, open_accelerator

PLAN = """
recipe = "finetune"
model = "{model}"
out = "{out}"
threads = 1
device = "cpu"
mixed_precision = "no"
micro_batches = {micro_batches}
log_every = 1
validate_every = 4
min_pixels = 1024
max_pixels = 4096

[data]
train = ["lines.jsonl"]
held_out = 0.5
chunk_seconds = 4.0
overlap_seconds = 2.0
history_seconds = 2.0

[method]
kind = "{kind}"
rank = 4
train_vision = {train_vision}
gradient_checkpointing = {checkpointing}

[schedule]
steps = {steps}
lr = 5e-3
warmup = 2
"""
WORDS = [[0.2, 0.8, "one"], [2.2, 2.8, "three"], [4.2, 4.9, "five"]]


def make_base(folder: Path) -> Path:
    """Fill a folder with what the plans name."""
    for name in ("a.mp4", "b.mp4"):
        small_video(folder, name, seconds=6.0)
    lines = [commentary(name, WORDS, stop=6.0, qa_stream=[[3.0, 3.0, "Bars?", "Yes."]]) for name in ("a.mp4", "b.mp4")]
    write_lines(folder / "lines.jsonl", *lines)
    for family in FAMILIES:
        model = random_model(family)
        model.module.save_pretrained(folder / family)
        model.tokenizer.save_pretrained(folder / family)
    return folder


def write_plan(base: Path, name: str, family: str = "qwen3_vl", **options: object) -> Path:
    fixed = {
        "kind": "lora", "train_vision": "false", "checkpointing": "false", "steps": 6, "micro_batches": 1,
        "model": base / family, "out": base / name,
    }  # fmt: skip
    path = base / f"{name}.toml"
    path.write_text(PLAN.format(**{**fixed, **options}))
    return path


def open_run(plan: Path) -> Trainer:
    AcceleratorState._reset_state(reset_partial_state=True)
    read = load_finetune_plan(plan)
    accelerator = open_accelerator(read.run)
    trainer = Trainer(Finetune(read, accelerator.device), read.run, accelerator)
    trainer.resume()
    return trainer


def course_of(trainer: Trainer) -> Finetune:
    assert isinstance(trainer.course, Finetune)
    return trainer.course
