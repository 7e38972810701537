"""Small runs of every benchmark: what they report adds up, and the README says what they reported."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from streamvlm.benchmarks import harness, past, quiz, recall, tables
from streamvlm.benchmarks.perf import decode, eyes, flatness, lag, predicted, store, tokens
from streamvlm.train.architecture import Shape, export, new_model
from streamvlm.world.questions import Question, TimedQuestion

SMALL = Shape(vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=32, head_dim=8)
FLAT = ["--frames", "80", "--window-seconds", "4", "--full-capacity", "900"]
# So few frames a second that also `blocking`, on a busy machine, finds a moment to ask between two of them.
LAG = ["--answers", "0", "2", "--tokens", "4", "--seconds", "1", "--warmup", "0.5", "--fps", "4", "--predict", "0.5"]
LAG += ["--watches", "1", "--narrate"]
TOKENS = ["--worlds", "1", "--seconds", "8", "--per-world", "4", "--prune", "dtd", "--prune", "cap(3)"]
RECALL = ["--distances", "30", "--questions", "4", "--k", "2", "--tail", "10"]
RECALL += ["--methods", "mean_key", "clusters", "recency", "embedding"]
PAST = ["--questions", "10", "--per-world", "10", "--seeds", "1", "--seconds", "30"]


pytestmark = pytest.mark.timeout(900)  # the first test waits for all of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Results of one small saved run of each benchmark, with random weights; beside them the picture."""
    root = tmp_path_factory.mktemp("benchmarks")
    export(new_model(SMALL, 0, root / "model"), root / "model")
    threads = torch.get_num_threads()
    options = ["--model", str(root / "model"), "--threads", "1", "--save"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "RESULTS", root)
        flatness.main([*options, *FLAT, "--picture", str(root / "flatness.svg")])
        lag.main([*options, *LAG])
        recall.main([*options, *RECALL, "--out", str(root / "recall")])
        patch.setattr(recall, "by_method", None)  # what is finished is not measured again
        recall.main([*options, *RECALL, "--out", str(root / "recall")])
        store.main([*options, "--hours", "0.2", "--turns", "3", "--folder", str(root)])
        tokens.main([*options, *TOKENS, "--picture", str(root / "tokens.svg")])
        past.main([*options, *PAST])
        yield root
    torch.set_num_threads(threads)


def result(folder: Path, name: str) -> dict[str, Any]:
    report = json.loads((folder / f"{name}.json").read_text())
    assert report["benchmark"] == name
    assert isinstance(report, dict)
    return report


def test_recall_counts_what_was_brought_back(folder: Path) -> None:
    report = result(folder, "recall")
    found = report["distances"]["30"]
    assert list(found["methods"]) == [f"{name}@2" for name in ("mean_key", "clusters", "recency", "embedding")]
    asked = found["in_window"]["asked"]
    assert found["forgotten"]["asked"] == asked > 0
    for row in found["methods"].values():
        for way in ("as_asked", "over_everything"):
            assert row[way]["asked"] == asked
            assert 0 <= row[way]["found"] <= asked and 0 <= row[way]["right"] <= asked
            assert 0 < row[way]["blocks"] <= 2 and row[way]["tokens"] > 0
        assert 0 < row["chance"] < 1
    assert sum(row["as_asked"]["found"] for row in found["methods"].values()) > 0
    assert report["claim"]["holds"] == (report["claim"]["best"]["30"]["accuracy_over_window"] >= 0.8)


def test_a_day_in_memory_adds_up(folder: Path) -> None:
    report = result(folder, "store")
    early, late = report["day"]["early"], report["day"]["late"]
    assert report["question_cost_24h_over_1h"] == pytest.approx(
        late["whole_answer_ms"] / early["whole_answer_ms"], abs=1e-3
    )
    for asked in (early, late):
        parts = sum(asked[f"{part}_ms"] for part in ("probe", "wait", "select", "read", "place"))
        assert 0 < asked["to_first_token_ms"] <= asked["whole_answer_ms"] and parts > 0
        assert asked["blocks"] > 1 and asked["questions"] == 30
        tokens = asked["tokens"]
        assert tokens["seen"] == tokens["window"] + tokens["stored"] + tokens["dropped"] and tokens["dropped"] == 0
    assert early["hours"] == pytest.approx(0.1, abs=0.01) and late["hours"] == pytest.approx(0.2, abs=0.01)
    assert report["day"]["store"]["blocks"] > 700
    for state in report["reading"]["cold"], report["reading"]["cached"]:
        assert min(state[f"{way}_mb_s"] for way in ("plain", "store", "scattered", "plain_scattered")) > 0
        assert 0 < state["store_over_plain"] < 100 and 0 < state["scattered_over_plain"] < 100
    assert report["read_over_sequential"] == report["reading"]["cold"]["store_over_plain"]
    spill = report["spill"]
    low, high = spill["step_overhead_95"]
    assert low <= spill["step_overhead"] <= high and len(spill["pairs"]) == 3 and spill["frames"] == 150
    low, high = spill["engine_thread_overhead_95"]
    assert -1 < low <= spill["engine_thread_overhead"] <= high
    assert report["spill_step_overhead"] == pytest.approx(statistics.median(spill["pairs"]) - 1, abs=1e-3)
    assert 0 < report["int8_attention_error"] <= 0.015 and 0 <= report["int8_logits_kl"] < 0.01


def test_flatness_counts_every_frame_token_and_slot(folder: Path) -> None:
    report = result(folder, "flatness")
    policies = report["policies"]
    assert list(policies) == ["sink_window", "last_frames", "sliding_recompute", "full"]
    for policy, found in policies.items():
        assert found["tokens_seen"] == found["tokens_window"] + found["tokens_dropped"], policy
        assert 0 < found["late"]["slots_used"] <= found["peak_slots"] <= found["capacity_slots"]
        assert found["points"][0][0] == 1 and found["points"][-1][0] <= found["frames"]
        assert found["step_ms"]["p50"] <= found["step_ms"]["p99"] <= found["step_ms"]["max"]
    ours, full = policies["sink_window"], policies["full"]
    assert ours["frames"] == 80 and ours["ended_by"] == "the end of the stream"
    assert full["frames"] < 80 and "capacity" in full["ended_by"] and full["tokens_dropped"] == 0
    assert full["late"]["slots_used"] > 2 * full["early"]["slots_used"]
    assert report["late_over_early"] == ours["late_over_early"] and report["flat"] == (ours["late_over_early"] <= 1.1)
    assert report["rss_growth_mb"] == ours["rss_growth_mb"]


@pytest.mark.parametrize(
    ("frames", "early", "late"),
    [(10000, (1000, 2000), (9000, 10000)), (3000, (1000, 2000), (2000, 3000)), (50, (5, 10), (45, 50))],
)
def test_early_and_late_are_what_the_claim_is_about(frames: int, early: tuple[int, int], late: tuple[int, int]) -> None:
    assert [(s.start, s.stop) for s in flatness.spans(frames)] == [early, late]


def test_the_curves_can_be_drawn_again_from_the_saved_result(folder: Path, tmp_path: Path) -> None:
    flatness.main(["--redraw", "--picture", str(tmp_path / "again.svg")])
    first, again = (folder / "flatness.svg").read_text(), (tmp_path / "again.svg").read_text()
    assert "StreamVLM: sink + window" in first and "cache full at" in first
    assert again == first


def test_redrawing_needs_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flatness.main(["--redraw"])
    assert "--redraw needs --picture" in capsys.readouterr().err


def test_lag_accounts_for_every_frame_under_every_schedule(folder: Path) -> None:
    report = result(folder, "lag")
    assert set(report["sweep"]) == set(predicted.SCHEDULES)
    for name, sweep in report["sweep"].items():
        assert list(sweep) == ["0", "2"]
        for answers, found in sweep.items():
            assert found["frames"] >= 1, name
            assert found["frames_shown"] == found["frames"] + found["forced_drops"], name
            assert 0 < found["p50_lag_s"] <= found["p99_lag_s"] <= found["max_lag_s"]
            assert (found["tokens_per_s"] > 0) == (answers != "0")
            assert (found["ttft_p50_s"] is None) == (answers == "0")
            assert found["claim"] == lag.claim(found, report["fps"])
        assert report["policies"][name] == sweep["2"]
    assert "predicted" in report["predicted"]["what"]
    for found in report["predicted"]["policies"].values():
        assert found["tokens_per_s"] > 0 and found["max_lag_s"] > 0


@pytest.mark.parametrize(
    ("late", "dropped", "waiting", "holds"),
    [(0.4, 0, 1, True), (0.6, 0, 1, False), (0.4, 1, 1, False), (0.4, 0, 2, False), (None, 0, 0, False)],
)
def test_perception_stalls_if_it_is_late_or_loses_or_queues(
    late: float | None, dropped: int, waiting: int, holds: bool
) -> None:
    found = {"max_lag_s": late, "forced_drops": dropped, "backlog_max": waiting}
    assert lag.claim(found, fps=1.0) == {"max_lag_limit_s": 0.5, "holds": holds}


@pytest.mark.parametrize(("said", "right"), [("red", True), (" Red.", True), ("red red", False), ("", False)])
def test_an_answer_is_right_when_it_says_the_truth_and_nothing_else(said: str, right: bool) -> None:
    asked = TimedQuestion(2.0, Question("color", "what color is the circle?", "red"))
    assert quiz.Reply(0, 1, asked, said).right == right


def test_tokens_compares_every_composition_on_every_kind_of_stream(folder: Path) -> None:
    report = result(folder, "tokens")
    assert list(report["compositions"]) == ["dtd", "cap(3)"] and report["streams"] == ["static", "moving", "fading"]
    for found in report["compositions"].values():
        assert {"kept", "accuracy_ratio", "vit_ratio", "prefill_ratio"} < set(found)
        for one in found["streams"].values():
            assert sum(task["asked"] for task in one["tasks"].values()) == report["questions"]
            assert one["vit_ratio"] > 0 and one["prefill_ratio"] > 0
            assert one["attention_error"] > 0 and one["logit_kl"] >= 0
    capped = report["compositions"]["cap(3)"]["streams"]
    assert all(one["kept"] == pytest.approx(3 / 16, abs=1e-3) for one in capped.values())
    assert all(none["kept"] == 1 for none in report["none"].values())
    assert report["compositions"]["dtd"]["streams"]["static"]["kept"] < 0.6
    before = (folder / "tokens.svg").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "RESULTS", folder)
        tokens.main(["--redraw", "--picture", str(folder / "tokens.svg")])
    assert (folder / "tokens.svg").read_bytes() == before


def test_a_composition_that_is_none_is_told_before_anything_is_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tokens.main(["--prune", "dtdd"])
    assert "unknown pruning method" in capsys.readouterr().err


def test_decode_reads_every_file_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    decode.main(["--seconds", "12", "--height", "192", "--turns", "3"])
    report = json.loads(capsys.readouterr().out)
    assert set(report["files"]) == set(decode.FILES) and report["identical"]
    assert report["worst_ratio"] == max(one["ratio"] for one in report["files"].values()) > 0


def test_eyes_compares_shared_calls_with_lone_ones(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    sizes = ["--frames", "8", "--turns", "1", "--cameras", "2", "--seconds", "1"]
    eyes.main(["--model", str(folder / "model"), "--threads", "1", "--save", *sizes])
    report = result(tmp_path, "eyes")
    assert list(report["tower"]) == [str(n) for n in eyes.PATCHES] and list(report["files"]) == ["1", "2", "4", "8"]
    assert all(one["ratio"] > 0 and one["difference"] <= 1e-4 for one in report["tower"].values())
    for one in report["files"].values():
        assert one["vit_ratio"] > 0 and one["wall_ratio"] > 0 and one["per_call"] >= one["apart_per_call"] == 1
    assert set(report["cameras"]) == {"together", "apart"} and report["cameras"]["apart"]["per_call"] == 1
    assert "| 16 |" in tables.section("eyes", tmp_path)


def test_past_asks_every_way_the_same_questions_and_finds_their_frames(folder: Path) -> None:
    result = harness.load(folder / "past.json")
    asked = {way: found["overall"]["asked"] for way, found in result["ways"].items()}
    assert set(asked) == {"live", "while_watching", "reopened", "forgotten"}
    assert len(set(asked.values())) == 1 and 0 < asked["live"] < 10, "some questions are still in the window"
    assert result["found"]["right"] == result["found"]["asked"] == asked["live"]


def test_tables_are_filled_once_and_stay(folder: Path) -> None:
    empty = "".join(f"# {name}\n<!-- table: {name} -->\n<!-- /table -->\n" for name in tables.TABLES)
    filled = tables.fill(f"before\n{empty}after\n", folder)
    assert filled.startswith("before\n# past\n<!-- table: past -->\n") and filled.endswith("after\n")
    assert tables.fill(filled, folder) == filled
    for text in ("| **all** |", "(sink + window) | 80 |", "taking turns"):
        assert text in filled
    report = result(folder, "past")["ways"]["live"]["overall"]
    assert f"({report['right']}/{report['asked']})" in filled


def test_a_table_without_result_says_so_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    marks = "<!-- table: past -->\nold\n<!-- /table -->"
    assert tables.fill(marks, tmp_path) == "<!-- table: past -->\nNot measured yet.\n<!-- /table -->"
    with pytest.raises(ValueError, match="unknown table 'speed'"):
        tables.fill(marks.replace("past", "speed"), tmp_path)


def test_the_readme_says_what_the_committed_results_say() -> None:
    text = tables.README.read_text(encoding="utf-8")
    assert sorted(found[1] for found in tables.SECTION.findall(text)) == sorted(tables.TABLES)
    assert text == tables.fill(text), "run python -m streamvlm.benchmarks.tables"
