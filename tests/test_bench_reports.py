"""Comparing runs, reporting them, checking downloads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import bench_data
import pytest
from test_bench_run import run_cli

from streamvlm.benchmarks.core import html
from streamvlm.benchmarks.core.compare import compare
from streamvlm.benchmarks.core.journal import Journal, Shard, write_results
from streamvlm.benchmarks.core.prepare import prepare
from streamvlm.benchmarks.core.records import Cost, Result, Sample
from streamvlm.benchmarks.suites.ovobench import OvoBench
from streamvlm.benchmarks.suites.streamingbench import StreamingBench
from streamvlm.world.video import VideoSpec, render


def samples(count: int) -> list[Sample]:
    """Questions of three tasks, one of each category, five to a video."""
    tasks = (("EPM", "backward"), ("OCR", "realtime"), ("CRR", "forward"))
    return [
        Sample(f"{t}/{k}", t, f"v{k // 5}", 1.0, "?", "A", "choice", ("x", "y"), group=g)
        for k in range(count)
        for t, g in tasks
    ]


def answered(asked: list[Sample], accuracy: float, seed: int) -> dict[str, Result]:
    rng = random.Random(seed)
    return {s.id: Result(s.id, "answered", "A" if rng.random() < accuracy else "B") for s in asked}


def test_a_clear_difference_is_told_from_chance_and_none_is_not_invented() -> None:
    asked = samples(100)
    worse, same, better = answered(asked, 0.5, 1), answered(asked, 0.5, 2), answered(asked, 0.8, 3)
    found = {d.name: d for d in compare(OvoBench(), asked, worse, better)}
    total = found["total"]
    scores = [OvoBench().score(asked, r).totals["official"]["total"] for r in (worse, better)]
    assert (total.first, total.second) == pytest.approx(scores)
    assert 0 < total.low < total.second - total.first < total.high and total.p < 0.01
    none = {d.name: d for d in compare(OvoBench(), asked, worse, same)}["total"]
    assert none.low < 0 < none.high and none.p > 0.05
    itself = {d.name: d for d in compare(OvoBench(), asked, worse, worse)}["total"]
    assert (itself.low, itself.high, itself.p) == (0.0, 0.0, 1.0)


def test_pairing_makes_the_interval_narrow() -> None:
    """Runs that are right on the same questions but for a few differ for sure, though both vary widely."""
    asked = samples(100)
    first = answered(asked, 0.5, 1)
    wrong = [k for k, r in first.items() if r.text == "B"]
    second = first | {k: Result(k, "answered", "A") for k in wrong[::8]}
    found = {d.name: d for d in compare(OvoBench(), asked, first, second)}["total"]
    assert 0 < found.low < found.high < 0.12


def test_runs_of_different_samples_are_not_compared() -> None:
    asked = samples(4)
    first, second = answered(asked[:3], 1, 1), answered(asked[3:], 1, 1)
    with pytest.raises(ValueError, match="no sample in common"):
        compare(OvoBench(), asked, first, second)


def made_run(folder: Path, benchmark: OvoBench | StreamingBench, data: Path, protocol: str, text: str) -> Path:
    """A run's folder, as if a model had always said `text` but failed once."""
    asked = benchmark.load(data)
    stamp = {
        "benchmark": benchmark.name, "annotations": {"name": data.name, "sha256": "0" * 64}, "samples": len(asked),
        "protocol": {"name": protocol, "replay": "clip", "frames": 64}, "prompts_sha256": "1" * 64,
        "model": {"model": "some/Model-2B"},
    }  # fmt: skip
    machine = {"gpu": None, "cpu": "a CPU", "cores": 2}
    start = {"stamp": stamp, "date": "2026-01-01", "git": {"commit": "abc"}, "machine": machine}
    kept = Journal(folder, Shard(), start)
    for k, sample in enumerate(asked):
        result = Result(sample.id, "answered", text) if k else Result(sample.id, "failed", note="no video")
        kept.add(result, Cost(sample.id, 0.5, 10, 100, 2, 0.1))
    return folder


def test_a_report_has_scores_baselines_costs_and_what_is_missing(tmp_path: Path) -> None:
    data = bench_data.ovo(tmp_path / "ovo.json")
    runs = [made_run(tmp_path / n, OvoBench(), data, n, "B") for n in ("official", "last4")]
    code, out, err = run_cli("report", "ovobench", *runs, "--data", data, "--out", tmp_path / "out")
    assert code == 0, err
    assert [Path(line.split()[1]).name for line in out.splitlines()] == ["report.md", "report.html", "report.json"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| task | Model-2B, official | Model-2B, last4 | constant |" in text
    assert "Baselines that were not run: blind, uniform64, sliding." in text
    assert "Model-2B, official: 1 of 15 samples failed and 0 have no result; both count as wrong." in text
    assert "## Strict score" in text and "SSR balanced accuracy" in text and "mean of the three categories" in text
    assert "| Model-2B, official | cpu | 8 s | 150 | 1,500 | 30 | 100 / 100 ms |" in text
    assert "frames 64" in text and "commit abc" in text
    scores = json.loads((tmp_path / "out" / "report.json").read_text())
    assert scores["constant"]["counts"]["samples"] == 15
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<table>") == text.count("|---|") and "<svg" in page and "<b>total</b>" in page
    assert "http" not in page.replace("https://huggingface.co", "").replace("http://www.w3.org/2000/svg", "")


def test_a_report_shows_the_blind_guess_where_it_is_more_than_a_constant(tmp_path: Path) -> None:
    data = bench_data.streaming(tmp_path / "streaming")
    run = made_run(tmp_path / "official", StreamingBench(), data, "official", "A")
    code, _, err = run_cli("report", "streamingbench", run, "--data", data, "--out", tmp_path)
    assert code == 0, err
    assert "| constant | blind, no model |" in (tmp_path / "report.md").read_text()


def test_runs_of_different_questions_are_not_put_into_one_report(tmp_path: Path) -> None:
    data = bench_data.ovo(tmp_path / "ovo.json")
    first = made_run(tmp_path / "a", OvoBench(), data, "official", "B")
    fewer = bench_data.write(tmp_path / "fewer.json", json.loads(data.read_text())[:5])
    second = made_run(tmp_path / "b", OvoBench(), fewer, "official", "B")
    code, _, err = run_cli("report", "ovobench", first, second, "--data", data)
    assert code == 2 and "differ in annotations" in err


def test_bars_are_as_long_as_their_values() -> None:
    drawn = html.plot({"a <task>": {"one": 50.0, "two": 100.0}})
    assert f'width="{html.WIDTH / 2:.1f}"' in drawn and f'width="{html.WIDTH:.1f}"' in drawn
    assert "a &lt;task&gt;" in drawn


def test_two_files_of_answers_are_compared_on_the_command_line(tmp_path: Path) -> None:
    data = bench_data.ovo(tmp_path / "ovo.json")
    asked = OvoBench().load(data)
    for name, text in (("one", "A"), ("two", "B")):
        write_results(tmp_path / f"{name}.jsonl", [Result(s.id, "answered", text) for s in asked])
    arguments = ("compare", "ovobench", tmp_path / "one.jsonl", tmp_path / "two.jsonl", "--data", data)
    code, out, _ = run_cli(*arguments, "--rule", "raw")
    found = {d["total"]: d for d in json.loads(out)["differences"]}
    assert code == 0 and found["total"]["difference"] == round(found["total"]["second"] - found["total"]["first"], 2)
    code, _, err = run_cli(*arguments, "--rule", "kind")
    assert code == 2 and "there is no rule 'kind'; there are official, raw, strict" in err


def test_a_download_is_checked(tmp_path: Path) -> None:
    data, videos = bench_data.streaming(tmp_path / "streaming"), tmp_path / "videos"
    asked = StreamingBench().load(data)
    render(1, 14.0, tmp_path / "made", VideoSpec(fps=2, size=64), questions=1)
    videos.mkdir()
    whole = (tmp_path / "made" / "video.mp4").read_bytes()
    (videos / "a.mp4").write_bytes(whole)
    found = prepare(StreamingBench(), asked, videos)
    assert found.missing == ("b.mp4",) and not found.complete and found.seconds == pytest.approx(14, abs=0.6)
    (videos / "b.mp4").write_bytes(whole)
    (videos / "other.mp4").write_bytes(b"")
    found = prepare(StreamingBench(), asked, videos)
    assert found.complete and found.duplicates == ("b.mp4: the same as a.mp4",) and found.unused == ("other.mp4",)
    assert [m.split(":")[0] for m in found.mistimed] == ["real/2/0"], "12450 s"
    (videos / "b.mp4").write_bytes(whole[: len(whole) // 3])
    (unreadable,) = prepare(StreamingBench(), asked, videos).unreadable
    assert unreadable.startswith("b.mp4: ")
    code, out, _ = run_cli("prepare", "streamingbench", "--data", data, "--videos", videos)
    assert code == 1 and json.loads(out)["complete"] is False and "huggingface.co" in json.loads(out)["get_it_from"]
    code, _, err = run_cli("prepare", "streamingbench", "--data", data, "--videos", tmp_path / "nowhere")
    assert code == 2 and "is not a folder; get the videos from" in err
