"""The loop: exact resuming, whatever ended the run before; several batches and processes a step; its records."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor
from training import open_micro

from streamvlm.errors import TrainingError
from streamvlm.train.architecture import load_model
from streamvlm.train.checkpoint import trained
from streamvlm.train.curves import draw_curves
from streamvlm.train.journal import Journal
from streamvlm.train.loop import Trainer, precision
from streamvlm.train.run import Run

HERE = Path(__file__).parent
STEPS = 12
PLAN = """
out = "{out}"
device = "cpu"
mixed_precision = "no"
log_every = 1
model = {{ vision_depth = 2, vision_hidden = 32, text_layers = 2, text_hidden = 32, text_intermediate = 64 }}

[clips]
cuts = {{ kind = "cuts", first_seed = 100, clips = 2, frames = 8, fps = 2 }}
slow = {{ kind = "slow", first_seed = 200, clips = 2, frames = 12, fps = 4 }}
validation = {{ kind = "slow", first_seed = 300, clips = 1, frames = 12, fps = 4 }}

[[stage]]
name = "one"
steps = 2
episodes = 1
window = [0, 1]
questions = [3, 4]
lr = 1e-3
"""
KILLS = ("1-half", "4-half", "7-whole", "8-named")


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in trained(trainer.course.learner).items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, weight in a.items():
        assert torch.equal(weight, b[name]), name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this file lie, so that they share the rendered clips."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def out(base: Path, request: pytest.FixtureRequest) -> Path:
    """This test's run folder."""
    return base / re.sub(r"\W+", "-", request.node.name)


@pytest.fixture(scope="module")
def whole(base: Path) -> tuple[Path, dict[str, Tensor]]:
    """A run that nothing interrupted."""
    out = base / "whole"
    trainer = open_micro(out, log_every=1, validate_every=6)
    trainer.run()
    assert trainer.step == STEPS
    return out, weights(trainer)


def test_the_loss_falls(whole: tuple[Path, dict[str, Tensor]]) -> None:
    lines = [line for line in Journal(whole[0] / "metrics.jsonl").read() if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    first, last = lines[0], lines[5]
    assert last["answer"] < first["answer"] and last["naming"] < first["naming"]
    assert lines[-1]["stage"] == "streams" and "naming" not in lines[-1]


@pytest.mark.parametrize("stops", [(4, 9), (6,), (1, 2, 11)])
def test_an_interrupted_run_ends_with_the_same_weights(
    stops: tuple[int, ...], whole: tuple[Path, dict[str, Tensor]], out: Path
) -> None:
    for stop in stops:
        open_micro(out).run(until=stop)
    rest = open_micro(out)
    assert rest.step == stops[-1]
    rest.run()
    assert_same(weights(rest), whole[1])
    loaded, mine = load_model(out / "model"), weights(rest)
    for name, weight in loaded.module.named_parameters():
        assert torch.equal(weight, mine[f"module.{name}"]), name


@pytest.fixture(scope="module")
def killed(base: Path, whole: tuple[Path, dict[str, Tensor]]) -> Path:
    """Runs that were killed around a write of their checkpoint."""
    command = [sys.executable, str(HERE / "crash_trainer.py"), str(base), *KILLS]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    return base


@pytest.mark.parametrize("case", KILLS)
def test_a_run_killed_while_it_writes_its_checkpoint_resumes_exactly(
    case: str, whole: tuple[Path, dict[str, Tensor]], killed: Path
) -> None:
    step, moment = case.split("-")
    resumed = open_micro(killed / case, log_every=1)
    assert resumed.step == int(step) - (moment != "named")
    resumed.run()
    assert_same(weights(resumed), whole[1])
    steps = [line["step"] for line in Journal(killed / case / "metrics.jsonl").read() if "loss" in line]
    assert steps == list(range(1, STEPS + 1)), "what was done twice is recorded once"


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


def test_frozen_stages_leave_the_vision_tower_alone(out: Path) -> None:
    trainer = open_micro(out)
    trainer.run(until=6)
    before = weights(trainer)
    trainer.run()
    after = weights(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(".visual." in name for name in changed)


def test_a_step_of_two_batches_is_the_mean_by_answer_tokens(out: Path) -> None:
    """Accumulated gradients equal those of one loss over both batches, which are not of the same size."""
    trainer = open_micro(out, micro_batches=2, log_every=1, clip=1e9)
    learner, course = trainer.course.learner, trainer.course
    pairs = ([course.batch(step, index) for index in range(2)] for step in range(6))
    trainer.step, parts = next((i, pair) for i, pair in enumerate(pairs) if pair[0].weight != pair[1].weight)
    losses = [learner(*part.inputs)["loss"] * part.weight for part in parts]
    torch.autograd.backward(sum(losses[1:], losses[0]) / sum(part.weight for part in parts))
    expected = {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    learner.zero_grad()
    seen: dict[str, Tensor] = {}

    def look(*_: object) -> None:
        seen.update({n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None})

    trainer._optimizer.optimizer.register_step_pre_hook(look)
    trainer.run(until=trainer.step + 1)
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_run_can_begin_from_given_weights(whole: tuple[Path, dict[str, Tensor]], out: Path) -> None:
    begun = open_micro(out, init=str(whole[0] / "model"))
    assert begun.step == 0
    for name, weight in weights(begun).items():
        if not name.startswith(("naming", "asks", "shows", "telling", "remembering")):  # heads that are thrown away
            assert torch.equal(weight, whole[1][name]), name


def test_a_checkpoint_of_another_model_or_damaged_is_named(out: Path) -> None:
    trainer = open_micro(out)
    trainer.run(until=1)
    state = torch.load(trainer.checkpoint)
    state["weights"].popitem()
    torch.save(state, trainer.checkpoint)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt.*another model"):
        open_micro(out)
    trainer.checkpoint.write_bytes(trainer.checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt.*--restart"):
        open_micro(out)


def test_a_changed_plan_is_said_when_resuming(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_micro(out).run(until=1)
    with caplog.at_level("WARNING"):
        open_micro(out)
        assert not caplog.records
        open_micro(out, seed=5)
    assert "plan has changed" in caplog.text


def test_progress_tells_the_time_left(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        open_micro(out, log_every=4).run()
    lines = [r.getMessage() for r in caplog.records if "of 12" in r.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["scenes", "scenes", "streams", "streams"]
    assert "step 4 of 12 (33%)" in lines[0] and "left" in lines[0]
    assert "about 0 s left" in lines[-1]


def test_curves_show_every_loss_and_score(whole: tuple[Path, dict[str, Tensor]]) -> None:
    text = (whole[0] / "curves.svg").read_text()
    root = ElementTree.fromstring(text)
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    records = Journal(whole[0] / "metrics.jsonl").read()
    scores = {name for record in records for name in record.get("validation", {})}
    assert len(lines) == 3 + len(scores)
    for name in ("loss", "answer", "naming", *scores):
        assert name in text
    for line in lines:
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        assert all(0 <= x <= 1000 and 0 <= y <= 700 for x, y in points)


def test_curves_of_a_run_that_diverged_can_be_drawn(tmp_path: Path) -> None:
    draw_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}], tmp_path / "c.svg")
    assert "nan" not in (tmp_path / "c.svg").read_text()


def test_a_record_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "lo')
    assert journal.rewind(2) == 1
    assert [line["step"] for line in journal.read()] == [1, 2]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"mixed_precision": "fp8"}, "fp8.*bf16"),
        ({"device": "gpu"}, "gpu.*cpu"),
        ({"micro_batches": 0}, "micro_batches.*0"),
        ({"init": "/nowhere"}, "/nowhere"),
        ({"clip": 0.0}, "clip"),
        ({"seed": -1}, "seed.*-1"),
    ],
)
def test_a_wrong_setting_is_named(setting: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Run(Path("x"), **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(("able", "used"), [(True, "bf16"), (False, "no")])
def test_bfloat16_is_not_chosen_where_the_cpu_has_no_instructions_for_it(
    able: bool, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
    assert precision(Run(Path("x"), device="cpu")) == used
    assert precision(Run(Path("x"), device="cpu", mixed_precision="bf16")) == "bf16"


def test_bfloat16_trains_and_resumes_exactly(out: Path) -> None:
    whole = open_micro(out.with_name("whole-half"), mixed_precision="bf16")
    whole.run(until=8)
    open_micro(out, mixed_precision="bf16").run(until=3)
    rest = open_micro(out, mixed_precision="bf16")
    rest.run(until=8)
    assert_same(weights(rest), weights(whole))
    assert all(w.dtype == torch.float32 for w in weights(whole).values())


@pytest.mark.slow
def test_two_processes_train_the_same_weights_as_one(out: Path) -> None:
    """Each process has half of a step's batches. (This is what `accelerate launch` starts GPU processes with.)"""
    alone = open_micro(out.with_name("alone"), micro_batches=2)
    alone.run(until=8)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(HERE / "launched.py"), str(out), "8"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"processes": 2, "step": 8}
    expected, state = weights(alone), torch.load(out / "checkpoint.pt")["weights"]
    for name, weight in expected.items():
        torch.testing.assert_close(state[name], weight, atol=2e-5, rtol=1e-3)


@pytest.mark.slow
def test_accelerate_launch_runs_the_command(out: Path) -> None:
    plan = out.with_suffix(".toml")
    plan.write_text(PLAN.format(out=out))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "-m", "streamvlm.cli", "train", str(plan)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"trained: {out / 'model'}" in done.stdout and "step 2 of 2" in done.stderr
    assert (out / "model" / "model.safetensors").exists()
