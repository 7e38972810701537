"""StreamWorld as a benchmark: what is asked, how alarms count, and a small run of every policy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_bench_run import run_cli

from streamvlm.benchmarks import ablation, ages, harness, streamworld, tables, world_table
from streamvlm.benchmarks.core.records import Result, Sample, Turn
from streamvlm.benchmarks.suites.rendered import Rendered
from streamvlm.benchmarks.suites.streamworld import Exams, StreamWorld, matched
from streamvlm.world.exam import ASKED
from streamvlm.world.story import Story
from streamvlm.world.truths import Told

SMALL = Exams(seeds=2, per_cell=2, longest=0, watches=3, tail=40)
FLAGS = ["--seeds", "2", "--per-cell", "1", "--longest", "0", "--watches", "2", "--tail", "30"]


def test_every_cell_is_asked_as_often_as_it_can_be_at_every_distance() -> None:
    benchmark = StreamWorld(Exams(seeds=2, per_cell=10, longest=600, watches=0, narrated=False, tail=120))
    samples = benchmark.load(Path())
    counts = Counter(s.task for s in samples)
    assert len(samples) == 2 * 10 * (len(ASKED) + 2) == len({s.id for s in samples})
    assert {"episode", "episode, 1 min", "episode, 10 min"} <= counts.keys() <= {*ASKED, *counts}
    assert all(s.truth and s.prompt for s in samples)
    assert {s.distance for s in samples} == {"window", "1 min", "10 min"}
    assert all(s.time <= benchmark.exams.seconds for s in samples)
    assert max(s.time for s in samples if s.task == "color") > 600, "present questions are asked at every age"


def true_turns(benchmark: StreamWorld, sample: Sample) -> tuple[Turn, ...]:
    """What a perfect watcher says by itself."""
    if sample.kind == "narration":
        return tuple(Turn("assistant", told.statement, told.time + 0.5) for told in benchmark.happened(sample))
    return tuple(Turn("assistant", "", o.since + 1) for o in (benchmark.onsets(sample) if sample.alert else ()))


def test_the_truth_is_right_and_a_constant_is_not() -> None:
    benchmark = StreamWorld(Exams(seeds=2, per_cell=10, longest=0, watches=4, tail=200))
    samples = benchmark.load(Path())
    right = {
        s.id: Result(s.id, "answered", s.truth.upper() + ".", turns=true_turns(benchmark, s)) for s in samples
    }  # fmt: skip
    scores = benchmark.score(samples, right)
    assert {v for v in scores.totals["official"].values()} == {1.0}
    assert scores.extras["narration F1"] == 100.0 and scores.extras["false lines per minute"] == 0.0
    assert scores.extras["watch F1"] == 100.0 and scores.extras["false alarms per watch and hour"] == 0.0
    constant = benchmark.score(samples, {s.id: benchmark.constant(s) for s in samples})
    present = constant.totals["official"]["present"]
    assert present is not None and 0 < present < 0.5 and constant.totals["official"]["proactive"] == 0.0


def test_an_alarm_counts_once_and_in_time_only() -> None:
    benchmark = StreamWorld(Exams(seeds=1, per_cell=1, longest=0, watches=4, tail=200))
    samples = benchmark.load(Path())
    watched = next(s for s in samples if s.task == "watch" and len(benchmark.onsets(s)) == 1)
    (onset,) = benchmark.onsets(watched)

    def marks(*calls: float) -> list[float]:
        turns = tuple(Turn("assistant", "", call) for call in calls)
        return [m.right for m in benchmark.marks(watched, Result(watched.id, "answered", turns=turns))]

    assert marks(onset.begins) == marks(onset.since + 2.0) == [1.0]
    assert marks() == marks(onset.begins - 0.1) == marks(onset.since + 2.1) == [0.0]
    results = {s.id: benchmark.constant(s) for s in samples}
    results[watched.id] = Result(
        watched.id, "answered", turns=(Turn("assistant", "", onset.since), Turn("assistant", "", onset.since + 1))
    )
    assert benchmark.score(samples, results).extras["false alarms per watch and hour"] > 0, "told twice"


@pytest.mark.parametrize(
    ("said", "hits", "made"),
    [
        ([(5.5, "it left")], 1, 1),
        ([(6.1, "it left")], 0, 1),
        ([(5.0, "it left"), (5.5, "it left")], 1, 2),
        ([(6.0, "it left; it blinked")], 2, 2),
        ([(5.0, "something else")], 0, 1),
        ([], 0, 0),
    ],
)
def test_an_event_is_narrated_once_in_time_and_in_its_words(
    said: list[tuple[float, str]], hits: int, made: int
) -> None:
    happened = [Told(5.0, "it left"), Told(6.5, "it blinked")]
    result = Result("x", "answered", turns=tuple(Turn("assistant", text, time) for time, text in said))
    assert matched(happened, result) == (hits, made)


def test_what_is_seen_went_through_h264_and_is_on_time() -> None:
    story = Story(5)
    seen = list(Rendered(story, 70.0).stream(2.0))
    assert [f.pts for f in seen] == [k / 2 for k in range(140)], "over two chunks"
    drawn = list(Rendered(story, 70.0).pictures([f.pts for f in seen[:30]], 0.0))
    error = torch.stack([(a.data.int() - b.data.int()).abs().float().mean() for a, b in zip(seen, drawn, strict=False)])
    assert 0 < error.max() < 8, "nearly the same picture, and not the same"


def test_the_last_line_has_an_accuracy_and_a_denominator_for_every_cell(tmp_path: Path) -> None:
    code, out, err = run_cli("run", "streamworld", *FLAGS, "--seed-base", 3_100_000, "--policy", "last_frames",
                             "--limit", 20, "--out", tmp_path)  # fmt: skip
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["counts"] == {"samples": 20, "answered": 20, "failed": 0, "missing": 0}
    assert found["protocol"]["policy"] == "last_frames" and found["extras"]["seeds"] == 2
    assert all({"accuracy", "asked"} <= cell.keys() for cell in found["cells"]["official"].values())
    code, again, err = run_cli("score", "streamworld", "--answers", tmp_path)
    assert code == 0, err
    assert json.loads(again)["cells"] == found["cells"], "the run's folder says what it was made with"
    code, _, err = run_cli("run", "streamworld", *FLAGS, "--seed-base", 1, "--limit", 20, "--out", tmp_path)
    assert code == 2 and "made differently" in err


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run of some ways, in two shards."""
    root = tmp_path_factory.mktemp("streamworld")
    threads = torch.get_num_threads()
    ways = ["sink_window", "notes", "held_out", "blind", "constant"]
    options = [*FLAGS, "--threads", "1", "--clips", "6", "--out", str(root / "runs"), "--ways", *ways]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "RESULTS", root)
        for shard in ("1/2", "2/2"):
            streamworld.main([*options, "--shard", shard])
        streamworld.main([*options, "--collect", "--save", "--picture", str(root / "streamworld.svg")])
        yield root
    torch.set_num_threads(threads)


def test_the_readme_has_a_row_for_every_cell_and_a_column_for_every_way(measured: Path) -> None:
    report: dict[str, Any] = json.loads((measured / "streamworld.json").read_text())
    assert list(report["ways"]) == ["sink_window", "notes", "held_out", "blind", "constant"]
    assert report["looks"] == "seen" and report["ways"]["sink_window"]["extras"]["seeds"] == 2, "both shards"
    text = tables.section("streamworld", measured)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    cells = report["ways"]["sink_window"]["cells"]["official"]
    assert lines.keys() >= {*cells, "**present**", "watching, a minute: time", "an answer: time", "… tokens read"}
    assert "watch" in cells and "narrate" in cells
    assert "as StreamVLM" in lines["watching, a minute: time"], "both see the same, and were watched together"
    assert [one["ways"] for one in report["watchings"]] == [["sink_window", "notes"], ["held_out"]]
    assert all(one["minutes"] > 0 and one["usage"]["tokens_in"] > 0 for one in report["watchings"])
    assert lines["kind"].count("|") == 8 and "| … with both |" in lines["kind"]
    shown = [way["cells"]["official"].get("color", {}).get("asked") for way in report["ways"].values()]
    assert shown[-2] != shown[0] and f"({shown[-2] or ''}" in lines["color"], "fewer questions are said in the cell"
    assert "F1" in text and "On looks that training never showed" in text and "benchmarks.streamworld" in text
    drawn = (measured / "streamworld.svg").read_text()
    assert drawn.startswith("<svg") and "backward" in drawn and "StreamVLM" in drawn


def test_every_way_has_a_name_and_all_are_asked_the_same() -> None:
    assert streamworld.WAYS.keys() == world_table.WATCHERS.keys()
    benchmark = StreamWorld(SMALL)
    asked = [s for s in benchmark.load(Path()) if s.alert is None]
    for way, chosen in streamworld.WAYS.items():
        assert chosen.protocol in benchmark.protocols(), way
        its = [s for s in benchmark.adjusted(**chosen.exams).load(Path()) if s.alert is None]
        assert way == "held_out" or its == asked[: len(its)], way


def test_only_all_shards_together_have_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        streamworld.main(["--shard", "1/2", "--picture", "x.svg"])
    assert "run --collect when all are done" in capsys.readouterr().err


def test_the_ablation_asks_of_the_past_only_and_shows_what_notes_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    threads = torch.get_num_threads()
    ablation.main(["--seeds", "1", "--per-cell", "2", "--longest", "60", "--tail", "4", "--threads", "1", "--save",
                   "--ways", "sink_window", "notes_alone", "constant", "--out", str(tmp_path / "runs")])  # fmt: skip
    torch.set_num_threads(threads)
    ways = harness.load(tmp_path / "ablation.json")["ways"]
    assert set(ways["notes_alone"]["cells"]["official"]) == {"episode", "episode, 1 min"}
    assert all(way["counts"]["samples"] == 4 for way in ways.values())
    (watching,) = harness.load(tmp_path / "ablation.json")["watchings"]
    assert watching["ways"] == ["sink_window", "notes_alone"] and watching["usage"]["rows_thought"] > 0
    assert ways["notes_alone"]["usage"]["rows_asked"] > ways["sink_window"]["usage"]["rows_asked"] > 0
    text = tables.section("ablation", tmp_path)
    assert "| given | in the window | 1 min |" in text and "| and notes |" in text


def test_answers_at_every_age_are_compared_with_those_of_the_window_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    threads = torch.get_num_threads()
    options = ["--hours", "0.05", "--per-cell", "1", "--threads", "1", "--out", str(tmp_path / "runs")]
    for way in ages.WAYS:
        ages.main([*options, "--ways", way])
    ages.main([*options, "--collect", "--save"])
    torch.set_num_threads(threads)
    report = harness.load(tmp_path / "ages.json")
    assert report["seconds"] == 180.0 and report["ages"].keys() == {"all", "1"}
    whole = report["ages"]["all"]
    assert whole["asked"] == len(ASKED) == report["ways"]["afresh"]["counts"]["answered"]
    assert 0 < whole["alike"] <= whole["asked"]
    for group, one in whole["groups"].items():
        both = [report["ways"][way]["totals"]["official"][group] for way in ages.WAYS]
        assert [one["first"], one["second"]] == pytest.approx(both, abs=0.1)
        low, high = one["interval_95"]
        assert low <= one["difference"] <= high
    text = tables.section("ages", tmp_path)
    assert "| hour | questions | present | backward | forward | same answer |" in text and "| **all** | 15 |" in text


def test_greater_distances_come_from_a_longer_stream_of_the_same_model(measured: Path, tmp_path: Path) -> None:
    report: dict[str, Any] = json.loads((measured / "streamworld.json").read_text())
    cells = {"episode": 50.0, "episode, 1 h": 30.0, "episode, 6 h": 20.0}
    found = {
        "weights_sha256": report["ways"]["notes"]["weights_sha256"],
        "cells": {"official": {cell: {"accuracy": share, "right": 1, "asked": 40} for cell, share in cells.items()}},
        "totals": {"official": {"backward": 50.0, "backward, 1 h": 30.0, "backward, 6 h": 20.0}},
    }
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps({"seeds": 1, "seconds": 24360.0, "ways": {"notes": found}}))
    report["far"] = streamworld.far(path, report)
    text = world_table.streamworld(report)
    rows = [line for line in text.splitlines() if line.startswith("| episode")]
    assert [row.split(" | ")[0] for row in rows] == ["| episode", "| episode, 1 h", "| episode, 6 h"]
    assert "20.0 (40)" in rows[2] and "(40)" not in rows[0], "what was asked here is not taken from elsewhere"
    assert "a stream of 406 minutes" in text and "backward, 6 h" in streamworld.bars(report)
    found["weights_sha256"] = "another"
    path.write_text(json.dumps({"seeds": 1, "seconds": 24360.0, "ways": {"notes": found}}))
    with pytest.raises(ValueError, match="of other weights"):
        streamworld.far(path, report)


def test_kinds_can_be_chosen_and_are_part_of_what_a_run_was_made_with() -> None:
    every, some = StreamWorld(SMALL), StreamWorld(SMALL).adjusted(kinds=["color", "sign"])
    assert {s.task for s in some.load(Path()) if s.alert is None} == {"color", "sign"}
    assert "kinds" not in every.settings() and StreamWorld().adjusted(**some.settings()).exams == some.exams


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds and per_cell >= 1"):
        Exams(seeds=0)
    with pytest.raises(ValueError, match="longest must be at least 60 s, or 0"):
        Exams(longest=-1)
    with pytest.raises(ValueError, match="looks must be one of all, seen, held_out, got 'new'"):
        Exams(looks="new")  # type: ignore[arg-type]
