"""The benchmark of live answers asks every way the same, and lets frames arrive meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamvlm.benchmarks import harness, live, tables
from streamvlm.train.architecture import Shape, export, new_model

SMALL = Shape(vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=32, head_dim=8)


def test_every_way_is_asked_the_same_and_live_ones_see_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(new_model(SMALL, 0, tmp_path / "model"), tmp_path / "model")
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    options = ["--model", str(tmp_path / "model"), "--worlds", "1", "--questions", "9", "--length", "30", "--save"]
    live.main(options)
    report = json.loads((tmp_path / "live.json").read_text())
    ways = report["ways"]
    assert list(ways) == list(live.WAYS) and report["trained_for"] == []
    assert len({one["asked"] for one in ways.values()}) == 1 and ways["snapshot"]["asked"] >= 2
    assert ways["snapshot"]["saw_s_more"] == 0.0 and ways["snapshot"]["as_snapshot"] == 1.0
    for way in live.LIVE:
        assert ways[way]["saw_s_more"] > 0 and ways[way]["tokens_per_answer"] <= live.LIMIT
    assert ways["restarted"]["tokens_per_answer"] > ways["snapshot"]["tokens_per_answer"]
    assert "| live, group-decoupled | no |" in tables.section("live", tmp_path)
