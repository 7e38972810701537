"""`streamvlm world`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streamvlm.cli.app import app
from streamvlm.world.kinds import KINDS


def world(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["world", *(str(argument) for argument in arguments)])


def test_the_list_names_every_kind_with_its_task() -> None:
    rows = [line.split() for line in world("list").stdout.splitlines()[1:]]
    assert [row[:3] for row in rows] == [[k.name, k.group, k.code] for k in KINDS.values()]


def test_the_report_has_a_row_for_every_kind_and_distance() -> None:
    kinds = ("--kind", "color", "--kind", "episode", "--distance", 0, "--distance", 60)
    rows = [line.split() for line in world("report", "--seeds", 4, "--questions", 12, *kinds).stdout.splitlines()[1:]]
    assert [(row[0], row[2], row[3] if row[2] == "window" else row[4]) for row in rows] == [
        ("color", "window", "16"), ("episode", "window", "16"), ("episode", "60", "16")
    ]  # fmt: skip


def test_a_world_is_rendered_as_asked(tmp_path: Path) -> None:
    options = ("--seed", 3, "--seconds", 8, "--fps", 2.5, "--size", 64, "--held-out", "--watches", 2, "--questions", 5)
    result = world("render", *options, "--kind", "place", "--kind", "is-there", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "qa.json").read_text())
    assert len(rows) == 5 and {row["task"] for row in rows} == {"place", "is-there"}
    for row in rows:
        assert (row["ovo"], row["group"], row["distance"]) == (KINDS[row["task"]].code, "present", 0)
        assert row["options"] is None or row["answer"] in row["options"]
    log = json.loads((tmp_path / "events.json").read_text())
    assert (log["looks"], log["fps"], log["size"]) == ("held_out", 2.5, 64)
    assert len(json.loads((tmp_path / "watches.json").read_text())) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--seconds", 60, "--distance", 3600), "need a stream of 3964 s"),
        (("--kind", "weather"), "unknown kinds of question"),
        (("--looks", "odd"), "looks must be all, seen or held_out"),
        (("--size", 33), "an even size"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    tmp_path: Path, options: tuple[object, ...], complaint: str
) -> None:
    result = world("render", "--seed", 1, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert complaint in re.sub(r"[│\s]+", " ", result.output)
