"""The soak by the clock, for a few seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamvlm.benchmarks import harness
from streamvlm.benchmarks.perf import soak
from streamvlm.train.architecture import Shape, export, new_model

SMALL = Shape(vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=32, head_dim=8)


def test_a_short_life_leaves_nothing_and_says_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(new_model(SMALL, 0, tmp_path / "model"), tmp_path / "model")
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(soak, "ACT", 0.05)
    soak.main(["--model", str(tmp_path / "model"), "--seconds", "4", "--fps", "4", "--save"])
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["clean"] and report["checks"] >= 1 and report["asked"] > 0
    assert (report["slots_left"], report["open_left"], report["threads_left"], report["error"]) == (0, 0, 0, None)


def test_what_is_left_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "measure", lambda arguments: {"clean": False})
    with pytest.raises(SystemExit, match="something was left"):
        soak.main(["--seconds", "1"])
