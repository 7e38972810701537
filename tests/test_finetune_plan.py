"""Fine-tuning from a plan's file: what is wrong with it, what was left out of the data, and the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from talks import commentary, write_lines
from tuning import WORDS, make_base, open_run, write_plan
from typer.testing import CliRunner

from streamvlm.cli.app import app


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with commentary, and a checkpoint of every family."""
    return make_base(tmp_path_factory.mktemp("finetune"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('kind = "lora"', 'kind = "qlora"', "qlora.*lora, full"),
        ("chunk_seconds = 4.0", "chunk_seconds = 2.0", "overlap_seconds < chunk_seconds"),
        ("rank = 4", "ranks = 4", "ranks"),
        ('train = ["lines.jsonl"]', "", "train"),
        ('train = ["lines.jsonl"]', 'train = "lines.jsonl"', "lists of files"),
        ("[data]", "[dat]", "data"),
        ('model = "', 'modell = "', "model"),
        ("threads = 1", 'init = "{base}"', "leave out init"),
        ('recipe = "finetune"', 'recipe = "magic"', "magic.*tiny, finetune"),
        ("steps = 6", "steps = -1", "steps >= 0"),
        ('train = ["lines.jsonl"]', 'train = ["none.jsonl"]', "none.jsonl"),
        ("micro_batches = 1", "micro_batches = ", "plan.toml"),
        ("held_out = 0.5", "held_out = 1.5", "held_out"),
    ],
)
def test_a_wrong_plan_is_one_line_that_says_what_is_wrong(old: str, new: str, complaint: str, base: Path) -> None:
    plan = base / "plan.toml"
    text = write_plan(base, "wrong").read_text()
    assert old in text
    plan.write_text(text.replace(old, new.replace("{base}", str(base))))
    result = CliRunner().invoke(app, ["train", str(plan)])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert re.search(complaint, result.stderr)


def test_lines_left_out_are_written_down(base: Path) -> None:
    write_lines(base / "some.jsonl", *(commentary(n, WORDS, stop=6.0) for n in ("a.mp4", "b.mp4", "x.mp4")))
    plan = write_plan(base, "some")
    plan.write_text(
        plan.read_text().replace("lines.jsonl", "some.jsonl").replace("held_out", "most_bad = 0.5\nheld_out")
    )
    open_run(plan)
    (line,) = (base / "some" / "left_out.txt").read_text().splitlines()
    assert "some.jsonl:3" in line and "x.mp4" in line


def test_the_command_trains_from_a_plan(base: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    result = CliRunner().invoke(app, ["train", str(write_plan(base, "command", steps=2))])
    assert result.exit_code == 0, result.output
    assert f"trained: {base / 'command' / 'model'}" in result.stdout
    assert {p.name for p in (base / "command").iterdir()} >= {"checkpoint.pt", "metrics.jsonl", "curves.svg", "model"}
