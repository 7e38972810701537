"""The benchmark of watches knows what is true, and scores accordingly."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from streamvlm import Probe, Rule, Watch, WatchFired
from streamvlm.benchmarks import harness, watches
from streamvlm.train.architecture import Shape, export, new_model
from streamvlm.world.truths import Onset
from streamvlm.world.truths import Watch as Condition

SMALL = Shape(vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=32, head_dim=8)


def fired(*times: float) -> Watch:
    watch = Watch("x", Probe(), Rule(), None)
    for number, time in enumerate(times, start=1):
        watch.tell(WatchFired(time, "x", 0.9, time, number))
    return watch


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([10.5, 41.0], {"recall": 1.0, "late": 0, "false_alarms": 0, "median_delay_s": 0.75}),
        ([14.0], {"recall": 0.0, "late": 1, "false_alarms": 0, "median_delay_s": None}),
        ([9.6, 30.0], {"recall": 0.5, "late": 0, "false_alarms": 1, "median_delay_s": 0.0}),
        ([], {"recall": 0.0, "late": 0, "false_alarms": 0, "median_delay_s": None}),
    ],
)
def test_onsets_are_told_in_time_or_they_are_not(times: Iterable[float], expected: dict[str, Any]) -> None:
    tally = watches.Tally()
    tally.add(Condition("x", (Onset(9.5, 10.0, 20.0), Onset(39.5, 40.0, 50.0))), fired(*times), 60.0)
    tally.seconds = 60.0
    report = tally.report()
    assert {key: report[key] for key in expected} == expected
    assert report["onsets"] == 2


def test_it_runs_and_counts_what_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(new_model(SMALL, 0, tmp_path / "model"), tmp_path / "model")
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    options = ["--model", str(tmp_path / "model"), "--worlds", "1", "--watches", "2", "--seconds", "14"]
    watches.main([*options, "--save"])
    report = json.loads((tmp_path / "watches.json").read_text())
    triggers = report["triggers"]
    assert set(triggers) == set(watches.TRIGGERS)
    assert len({found["onsets"] for found in triggers.values()}) == 1
    assert triggers["probe"]["rows_per_min"] > triggers["drop_ratio"]["rows_per_min"] == 0
    assert triggers["commentary"]["rows_per_min"] > 0
