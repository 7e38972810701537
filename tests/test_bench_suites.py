"""OVO-Bench and StreamingBench: what is read, what is asked, how it is scored and exported."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import bench_data
import bench_rules
import pytest

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.records import Result, Sample, Turn
from streamvlm.benchmarks.suites.ovobench import OvoBench
from streamvlm.benchmarks.suites.streamingbench import StreamingBench
from streamvlm.benchmarks.suites.streamingbench_files import MODEL


def said(samples: list[Sample], *texts: str) -> dict[str, Result]:
    """The texts in turn, as results."""
    return {s.id: Result(s.id, "answered", texts[k % len(texts)]) for k, s in enumerate(samples)}


def constant(benchmark: Benchmark, samples: list[Sample]) -> dict[str, Result]:
    return {s.id: benchmark.constant(s) for s in samples}


# OVO-Bench


@pytest.fixture
def ovo(tmp_path: Path) -> tuple[Path, list[Sample]]:
    path = bench_data.ovo(tmp_path / "ovo.json")
    return path, OvoBench().load(path)


def test_ovo_asks_every_point_at_its_time_and_shows_no_truth(ovo: tuple[Path, list[Sample]]) -> None:
    samples = {s.id: s for s in ovo[1]}
    assert len(samples) == 15
    first = samples["EPM/0"]
    assert (first.truth, first.letters, first.time, first.group) == ("B", "ABCDE", 3.2, "backward")
    assert "what is number 0?" in first.prompt and "E. Unable to answer" in first.prompt
    assert "as annotated" not in first.prompt
    assert [samples[f"REC/9/{k}"].truth for k in (0, 1)] == ["1", "12"]
    assert [samples[f"SSR/10/{k}"].truth for k in (0, 1)] == ["Yes", "No"]
    assert "stir" in samples["SSR/10/0"].prompt and "Cook" in samples["SSR/10/0"].prompt
    assert "what comes?" in samples["CRR/11/0"].prompt and "it comes" not in samples["CRR/11/0"].prompt


@pytest.mark.parametrize(
    ("task", "text", "official", "raw", "strict"),
    [
        ("EPM", "B", True, True, True),
        ("EPM", " B. ", True, True, True),
        ("EPM", "(B) the blue one", True, True, False),
        ("EPM", "ABCDE", False, True, False),
        ("EPM", "b", True, False, False),
        ("EPM", "blue", True, False, False),
        ("EPM", "Both are Blue", False, True, False),
        ("EPM", "", False, False, False),
        ("REC", "1", True, True, True),
        ("REC", "1 time", True, True, False),
        ("REC", "one", True, False, False),
        ("REC", "1 of 2", False, False, False),
        ("SSR", "Yes", True, True, True),
        ("SSR", "yes, she is", True, False, False),
        ("SSR", "Y", True, True, False),
        ("SSR", "Yes or No", True, True, False),
        ("SSR", "Not sure", False, False, False),
    ],
)
def test_ovo_rules(
    ovo: tuple[Path, list[Sample]], task: str, text: str, official: bool, raw: bool, strict: bool
) -> None:
    sample = next(s for s in ovo[1] if s.task == task)
    marks = {m.rule: bool(m.right) for m in OvoBench().marks(sample, Result(sample.id, "answered", text))}
    assert marks == {"official": official, "raw": raw, "strict": strict}


def test_ovo_failures_and_missing_results_stay_in_the_denominator(ovo: tuple[Path, list[Sample]]) -> None:
    samples = ovo[1]
    results = said(samples, "A")
    results[samples[1].id] = Result(samples[1].id, "failed", note="no such video")
    del results[samples[0].id]
    found = OvoBench().score(samples, results)
    assert dict(found.counts) == {"samples": 15, "answered": 13, "failed": 1, "missing": 1}
    assert sum(share.asked for share in found.cells["official"].values()) == 15
    assert found.cells["official"]["ASI"].right == 0
    with pytest.raises(ValueError, match=r"1 results are of no sample of ovobench, among them \['EPM/99'\]"):
        OvoBench().score(samples, results | {"EPM/99": Result("EPM/99", "answered")})


def test_ovo_export_is_scored_alike_by_the_official_rules_and_reads_back(
    ovo: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    path, samples = ovo
    results = said(samples, "A", "(B) it is", "yes", "two", "12", "No.", "I cannot tell")
    results[samples[2].id] = Result(samples[2].id, "failed")
    ours = OvoBench().score(samples, results)
    (written,) = OvoBench().export(path, results, tmp_path / "out")
    assert written == tmp_path / "out" / "MiniCPM_o" / "MiniCPM_o.json"
    theirs = bench_rules.ovo(written.parent)
    for task, share in ours.cells["official"].items():
        assert 100 * (share.accuracy or 0) == pytest.approx(theirs[task])
    assert 100 * (ours.totals["official"]["total"] or 0) == pytest.approx(theirs["total"])
    again = OvoBench().score(samples, OvoBench().read_answers(written, samples))
    assert again.cells["official"] == ours.cells["official"]
    responses = [r["response"] for r in json.loads(written.read_text())["backward"]]
    assert all(len(r) == 1 for r in responses), "a letter or a dash"


def test_ovo_balanced_accuracy_of_a_constant_is_a_half(ovo: tuple[Path, list[Sample]]) -> None:
    found = OvoBench().score(ovo[1], constant(OvoBench(), ovo[1]))
    assert found.extras == {"SSR balanced accuracy": 50.0, "CRR balanced accuracy": 50.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "XXX"}, "record 0: task 'XXX' is not one of"),
        ({"gt": 5}, "record 0: gt is 5, and there are 5 options"),
        ({"realtime": "soon"}, "record 0: 'realtime' must be a int or float, got 'soon'"),
        ({"options": None}, "record 0: 'options' must be a list"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rows = json.loads(bench_data.ovo(tmp_path / "ovo.json").read_text())
    rows[0] |= change
    with pytest.raises(ValueError, match=message):
        OvoBench().load(bench_data.write(tmp_path / "bad.json", rows))


def test_real_ovo_counts_and_constant_scores() -> None:
    samples = OvoBench().load(bench_data.real_file("ovobench", "ovo_bench_new.json"))
    assert len({s.id for s in samples}) == 3035 and len({s.video for s in samples}) == 644
    assert Counter(s.task for s in samples) == {
        "EPM": 297, "HLD": 186, "ASI": 148, "STU": 178, "OJR": 184, "ATR": 116, "ACR": 109, "OCR": 149, "FPD": 101,
        "REC": 698, "SSR": 629, "CRR": 240,
    }  # fmt: skip
    found = OvoBench().score(samples, constant(OvoBench(), samples)).to_json()["totals"]["official"]
    assert {k: found[k] for k in ("backward", "realtime", "forward", "total")} == {
        "backward": 34.86,
        "realtime": 27.63,
        "forward": 49.25,
        "total": 37.25,
    }


def test_the_real_ovo_scorer_can_be_gamed_and_our_export_cannot() -> None:
    samples = OvoBench().load(bench_data.real_file("ovobench", "ovo_bench_new.json"))
    gamed = {s.id: Result(s.id, "answered", {"choice": "ABCDE", "yesno": "Yes No"}.get(s.kind, "1")) for s in samples}
    totals = OvoBench().score(samples, gamed).totals
    raw, official, strict = (100 * (totals[rule]["total"] or 0) for rule in ("raw", "official", "strict"))
    assert raw > 90 and official < 37.25 and strict < 37.25


# StreamingBench


@pytest.fixture
def streaming(tmp_path: Path) -> tuple[Path, list[Sample]]:
    folder = bench_data.streaming(tmp_path / "questions")
    return folder, StreamingBench().load(folder)


def test_streaming_reads_every_file_with_its_oddities(streaming: tuple[Path, list[Sample]]) -> None:
    samples = {s.id: s for s in streaming[1]}
    assert Counter(s.group for s in samples.values()) == {
        "real": 3, "omni": 2, "sqa": 3, "proactive": 2, "proactive_50": 1,
    }  # fmt: skip
    assert [samples[f"real/{k}/0"].time for k in range(3)] == [4.0, 7.0, 12450.0]
    assert samples["real/0/0"].video == "a.mp4"
    assert samples["real/0/0"].prompt.endswith("D. none\nThe best option is:")
    assert samples["omni/0/0"].options == ("A. red", "B. green", "C. blue", "D. none"), "the extra ones are dropped"


def test_streaming_history_holds_the_true_answers_of_the_same_video(streaming: tuple[Path, list[Sample]]) -> None:
    samples = {s.id: s for s in streaming[1]}
    assert "Answer:" not in samples["sqa/0/0/0"].prompt and "Answer:" not in samples["sqa/1/0/0"].prompt
    second = samples["sqa/0/1/0"].prompt
    assert "At timestamp 00:00:03" in second and "Answer: B;" in second and "B. green." in second
    assert "Answer: D" not in second, "its own answer"


def test_streaming_proactive_leaks_nothing_outside_official_polling(streaming: tuple[Path, list[Sample]]) -> None:
    sample = next(s for s in streaming[1] if s.id == "proactive/1/0")
    assert sample.alert is not None
    assert (sample.time, sample.alert.due, sample.alert.until) == (1.0, (12.0,), 16.0)
    assert '"7"' in sample.alert.poll and "right time" in sample.alert.poll
    assert sample.prompt == 'At seven, output "7".', "only what the annotation asks"


@pytest.mark.parametrize(("delay", "timed"), [(4.9, False), (5.0, True), (7.0, True), (9.0, True), (9.1, False)])
def test_streaming_proactive_window_is_two_seconds_inclusive(
    streaming: tuple[Path, list[Sample]], delay: float, timed: bool
) -> None:
    sample = next(s for s in streaming[1] if s.id == "proactive/0/0")  # asked at 2 s, due at 9 s
    result = Result(sample.id, "answered", "red", turns=(Turn("assistant", "it is red", 2.0 + delay),))
    marks = {(m.rule, m.task.split(", ")[1]): bool(m.right) for m in StreamingBench().marks(sample, result)}
    assert marks["official", "time (250)"] == timed and marks["official", "answer (250)"] == timed
    assert not marks["strict", "answer (250)"], "more was said than the expected words"


def test_streaming_export_is_scored_alike_by_the_official_rules_and_reads_back(
    streaming: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    folder, samples = streaming
    results = said([s for s in samples if s.kind == "choice"], " C", "(A) red", "nothing", "The answer is B")
    for sample in samples:
        if sample.kind == "proactive":
            turns = (Turn("assistant", "red", 9.0),) if sample.video == "a.mp4" else ()
            results[sample.id] = Result(sample.id, "answered", "red" if turns else "", turns=turns)
    ours = StreamingBench().score(samples, results)
    written = {p.name: p for p in StreamingBench().export(folder, results, tmp_path / "out")}
    theirs: dict[str, tuple[int, int]] = {}
    for part in ("real", "omni", "sqa"):
        path = written[f"questions_{part}_{MODEL}.json"]
        theirs |= bench_rules.streaming(path, MODEL, sequential=part == "sqa")
    cells = ours.cells["official"]
    assert {t: (s.right, s.asked) for t, s in cells.items() if "Proactive" not in t} == theirs
    counted = bench_rules.proactive(written[f"questions_proactive_{MODEL}.json"], MODEL)
    timed, words = cells["Proactive Output, time (250)"], cells["Proactive Output, answer (250)"]
    assert counted == (timed.right, words.right, timed.asked) == (1, 1, 2)
    again = StreamingBench().read_answers(written[f"questions_real_{MODEL}.json"], samples)
    assert {k: r.text for k, r in again.items()} == {"real/0/0": "C", "real/1/0": "A", "real/2/0": "-"}


def test_streaming_totals_are_micro_over_the_papers_questions(streaming: tuple[Path, list[Sample]]) -> None:
    samples = streaming[1]
    results = {s.id: Result(s.id, "answered", s.truth) for s in samples if s.group in ("real", "sqa")}
    found = StreamingBench().score(samples, results).totals["official"]
    assert found == {"realtime": 1.0, "omni": 0.0, "context": 3 / 5, "overall": 6 / 9}
    only = [s for s in samples if s.group == "real"]
    assert StreamingBench().score(only, {}).totals["official"]["overall"] is None


def test_streaming_bad_times_are_named(streaming: tuple[Path, list[Sample]]) -> None:
    path = streaming[0] / "questions_real.json"
    rows = json.loads(path.read_text())
    rows[1]["questions"][0]["time_stamp"] = "later"
    with pytest.raises(ValueError, match=r"real, entry \(1, 0\): a time is written H:MM:SS, got 'later'"):
        StreamingBench().load(bench_data.write(path, rows))
    with pytest.raises(ValueError, match="must be named after its part"):
        StreamingBench().load(bench_data.write(path.with_name("other.json"), rows))


def test_real_streamingbench_counts() -> None:
    samples = StreamingBench().load(bench_data.real_file("streamingbench"))
    assert Counter(s.group for s in samples) == {
        "real": 2500, "omni": 1500, "sqa": 250, "proactive": 250, "proactive_50": 51,
    }  # fmt: skip
    real = [s for s in samples if s.group == "real"]
    assert len({s.video for s in real}) == 499
    assert Counter(s.task for s in real) == {
        "Object Recognition": 367, "Action Recognition": 353, "Text-Rich Understanding": 321, "Clips Summarize": 317,
        "Attribute Recognition": 306, "Spatial Understanding": 246, "Counting": 193, "Event Understanding": 161,
        "Causal Reasoning": 128, "Prospective Reasoning": 108,
    }  # fmt: skip
    assert set(Counter(s.task for s in samples if s.group == "omni").values()) == {250}
    assert Counter(s.truth for s in real) == dict.fromkeys("ABCD", 625)


def test_real_streamingbench_blind_proactive_score() -> None:
    benchmark = StreamingBench()
    samples = benchmark.load(bench_data.real_file("streamingbench"))
    found = benchmark.score(samples, {s.id: benchmark.blind(s) for s in samples}).cells["official"]
    assert (found["Proactive Output, time (250)"].right, found["Proactive Output, time (250)"].asked) == (131, 250)
    assert found["Proactive Output, answer (250)"].right == 129
    assert (found["Proactive Output, time (51)"].right, found["Proactive Output, time (51)"].asked) == (30, 51)


def test_real_streamingbench_sequential_prompts_hold_all_true_answers_before_them() -> None:
    samples = [s for s in StreamingBench().load(bench_data.real_file("streamingbench")) if s.group == "sqa"]
    seen: dict[int, list[str]] = {}
    for sample in samples:
        before = seen.setdefault(sample.origin[0], [])
        assert re.findall(r"Answer: ([A-D]);", sample.prompt) == before
        before.append(sample.truth)
    assert sorted(map(len, seen.values()))[-1] == 5
