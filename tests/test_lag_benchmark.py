"""The benchmark of lag keeps every run that is over, and goes on where it was cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamvlm.benchmarks import harness
from streamvlm.benchmarks.perf import lag, predicted


class Runs:
    """Stands for the measuring, which takes minutes; is cut off after so many runs."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.most = 1000

    def __call__(self, model: object, pictures: object, name: str, answers: int, arguments: object) -> dict[str, Any]:
        if len(self.made) == self.most:
            raise KeyboardInterrupt
        self.made.append((name, answers))
        return {"max_lag_s": 0.1 * len(self.made)}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    made = Runs()
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(lag, "load_model", lambda config: None)
    monkeypatch.setattr(lag, "draw_pictures", lambda *options: [])
    monkeypatch.setattr(lag, "one_run", made)
    return made


def kept(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "lag.json").read_text())
    return report


def test_one_command_runs_every_schedule_with_every_number_of_answers(runs: Runs, tmp_path: Path) -> None:
    lag.main(["--save"])
    report = kept(tmp_path)
    assert sorted(runs.made) == sorted((name, n) for name in predicted.SCHEDULES for n in (0, 1, 4, 8, 16))
    assert report["answers"] == [0, 1, 4, 8, 16] and list(report["sweep"]) == list(predicted.SCHEDULES)
    assert all(report["policies"][name] == found["16"] for name, found in report["sweep"].items())


def test_what_was_cut_off_goes_on_and_nothing_is_measured_twice(runs: Runs, tmp_path: Path) -> None:
    options = ["--save", "--schedules", "blocking", "ours", "--answers", "8", "0", "--seconds", "600"]
    runs.most = 3
    with pytest.raises(KeyboardInterrupt):
        lag.main(options)
    before = kept(tmp_path)["sweep"]
    assert {name: list(found) for name, found in before.items()} == {"ours": ["0"], "blocking": ["0", "8"]}
    runs.most = 1000
    lag.main(options)
    after = kept(tmp_path)
    assert len(runs.made) == len(set(runs.made)) == 4
    assert {name: list(found) for name, found in after["sweep"].items()} == {"ours": ["0", "8"], "blocking": ["0", "8"]}
    assert after["sweep"]["blocking"] == before["blocking"]
    lag.main(["--save", "--schedules", "ours", "--answers", "1", "--seconds", "600"])
    assert list(kept(tmp_path)["sweep"]["ours"]) == ["0", "1", "8"], "another piece is put where it belongs"


def test_what_was_measured_otherwise_is_neither_mixed_nor_lost(runs: Runs, tmp_path: Path) -> None:
    lag.main(["--save", "--answers", "0"])
    with pytest.raises(SystemExit, match="--fresh"):
        lag.main(["--save", "--answers", "0", "--watches", "8"])
    assert kept(tmp_path)["watches"] == 0
    lag.main(["--save", "--answers", "0", "--watches", "8", "--fresh"])
    assert kept(tmp_path)["watches"] == 8 and len(runs.made) == 2 * len(predicted.SCHEDULES)
