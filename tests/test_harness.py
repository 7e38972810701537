from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from streamvlm.benchmarks import harness


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[-1])
    assert isinstance(report, dict)
    return report


def test_last_line_holds_the_result_and_what_it_was_measured_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, results: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["flatness.py", "--frames", "10"])
    print("some progress")
    harness.finish({"late_over_early": 1.02}, save=False, name="flatness")
    report = printed(capsys)
    assert report["late_over_early"] == 1.02
    assert report["command"] == ["flatness.py", "--frames", "10"]
    machine = report["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["cpu"] and machine["cores"] >= 1 and machine["ram_gb"] > 0
    assert (machine["gpu"] is None) == (not torch.cuda.is_available())
    assert not results.exists()


def test_save_keeps_what_was_printed(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    harness.finish({"ours": {"max_lag_s": 0.1}}, save=True, name="lag")
    assert json.loads((results / "lag.json").read_text()) == printed(capsys)


def test_commit_and_changes_are_read_from_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "HERE", tmp_path)
    assert harness.commit() == {"commit": None, "dirty": None}
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    clean = harness.commit()
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "new.txt").touch()
    assert harness.commit() == {"commit": clean["commit"], "dirty": True}


@pytest.mark.parametrize(
    ("result", "name", "message"),
    [
        ({}, "../escape", "name must be"),
        ({"machine": 1}, "x", r"may not contain the keys \['machine'\]"),
        ({"p50": float("nan")}, "x", "not JSON compliant"),
    ],
)
def test_what_cannot_be_kept_is_refused(results: Path, result: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        harness.finish(result, save=True, name=name)
    assert not results.exists()
