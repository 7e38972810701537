"""The other benchmarks: what their readers make of files in their schemas, and how they are judged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import bench_data
import bench_rules
import pytest
from test_bench_run import run_cli

from streamvlm.benchmarks.core.judge import JudgeError, Kept, Server, Verdict, first_letter, number, prefer
from streamvlm.benchmarks.core.judged import JUDGED
from streamvlm.benchmarks.core.records import Result, Turn
from streamvlm.benchmarks.registry import BENCHMARKS, find
from streamvlm.benchmarks.suites.commentary import InfStreams, LiveSports
from streamvlm.benchmarks.suites.magqa import Magqa
from streamvlm.benchmarks.suites.odvbench import OdvBench
from streamvlm.benchmarks.suites.ovotiming import OvoTiming, matches
from streamvlm.benchmarks.suites.streameqa import StreamEqa
from streamvlm.benchmarks.suites.svbench import SvBench
from streamvlm.benchmarks.suites.vstreamqa import VStreamQa


def said(key: str, text: str, *turns: tuple[float, str]) -> Result:
    return Result(key, "answered", text, turns=tuple(Turn("assistant", content, time) for time, content in turns))


def test_every_benchmark_has_protocols_and_a_constant_baseline() -> None:
    for name in BENCHMARKS:
        benchmark = find(name)
        protocols = benchmark.protocols()
        assert benchmark.name == name and {"stream", "constant"} <= protocols.keys()
        assert all(key == protocol.name for key, protocol in protocols.items())


# Multiple choice


def test_streameqa_reads_both_kinds_of_time_and_keeps_blanks_in_the_denominator(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "video": "P09-1", "realtime": "00:01:10", "question": "q?", "options": list("wxyz"), "gt": 2,
         "task": "Cooking"},
        {"id": 2, "video": "P09-1", "realtime": 7.5, "question": "r?", "options": ["no", "yes"], "gt": 1,
         "task": "Cooking"},
    ]  # fmt: skip
    benchmark = StreamEqa()
    samples = benchmark.load(bench_data.write(tmp_path / "Perception.json", rows))
    assert [(s.time, s.truth, s.video) for s in samples] == [(70.0, "C", "P09-1.mp4"), (7.5, "B", "P09-1.mp4")]
    (tmp_path / "P09").mkdir()
    assert benchmark.footage("P09-1.mp4", tmp_path).path == tmp_path / "P09" / "P09-1.mp4"  # type: ignore[attr-defined]
    found = benchmark.score(samples, {samples[0].id: said(samples[0].id, "C"), samples[1].id: said(samples[1].id, "")})
    assert found.totals["official"]["total"] == 0.5 and found.extras == {"official, blanks left out": 100.0}
    results = {s.id: said(s.id, text) for s, text in zip(samples, ("The answer is C.", "no idea"), strict=True)}
    (written,) = benchmark.export(tmp_path / "Perception.json", results, tmp_path / "out")
    assert bench_rules.streameqa(written, "streamvlm") == (1, 2), "an unclear answer stays in its denominator"
    assert json.loads(written.read_text())[0] == rows[0] | {"streamvlm": "C"}
    (part,) = benchmark.export(tmp_path / "Perception.json", {samples[1].id: results[samples[1].id]}, tmp_path / "part")
    assert bench_rules.streameqa(part, "streamvlm") == (0, 1), "what was not asked is not in the file"


def test_odvbench_takes_the_letter_of_the_first_equal_candidate(tmp_path: Path) -> None:
    row = {"task": "Static", "subtask": "Sign", "question": "q?", "answer": "red", "video": "a.mp4",
           "candidates": ["blue", "red", "red"], "start": 3, "end": 9.5}  # fmt: skip
    (sample,) = OdvBench().load(bench_data.write(tmp_path / "static.json", [row]))
    assert (sample.truth, sample.task, sample.start, sample.time) == ("B", "Static: Sign", 3.0, 9.5)
    rows = [row | {"question": 'what\tis "it"?'}, row | {"answer": "blue"}, row]
    samples = OdvBench().load(bench_data.write(tmp_path / "static.json", rows))
    results = {s.id: said(s.id, text) for s, text in zip(samples, ("B", "b) red", ""), strict=True)}
    (written,) = OdvBench().export(tmp_path / "static.json", results, tmp_path / "out")
    assert bench_rules.odv(written) == (1, 3)
    assert OdvBench().score(samples, results).totals["official"]["total"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="'green' is none of the candidates"):
        OdvBench().load(bench_data.write(tmp_path / "bad.json", [row | {"answer": "green"}]))


# Judges


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("A", "A"), (" b.", "B"), ("Comment A is better", "A"), ("**B**", "B"), ("Both", None), ("", None), ("An", None)],
)
def test_a_preference_is_read_or_counted_as_unparsable(reply: str, letter: str | None) -> None:
    assert first_letter(reply) == letter


@pytest.mark.parametrize(
    ("reply", "label", "value"),
    [("4", "", 4), ("Overall: 7", "Overall", 7), ("Temporal: -1", "Temporal", -1), ("11", "", None), ("none", "", None),
     ("Logical: x", "Overall", None)],
)  # fmt: skip
def test_a_grade_is_read_or_not(reply: str, label: str, value: int | None) -> None:
    assert number(reply, -1, 10, label) == value


def test_preference_is_asked_in_both_orders() -> None:
    def first(prompt: str) -> str:
        return "A"

    def honest(prompt: str) -> str:
        return "A" if prompt.index("ours") < prompt.index("theirs") else "B"

    assert prefer(first, "ref", "ours", "theirs") == Verdict(0.5, 0, 2, 2), "a judge that always takes the first"
    assert prefer(honest, "ref", "ours", "theirs") == Verdict(1.0, 0, 2, 1)
    assert prefer(lambda _: "hm", "ref", "ours", "theirs") == Verdict(0.0, 2, 2, 0)


def test_vstreamqa_is_judged_yes_or_no_over_all_questions(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"video_id": "v1", "question": "what?", "answer": "a cat", "answer_type": "object", "duration": 30, "id": "x"},
        {"video_id": "v2", "video_path": "some/v2.mp4",
         "conversations": [{"question": "and?", "answer": "a dog", "start_time": 1, "end_time": 8.5}]},
    ]  # fmt: skip
    benchmark = VStreamQa()
    samples = benchmark.load(bench_data.write(tmp_path / "v.json", rows))
    assert [(s.video, s.time, s.task) for s in samples] == [("v1.mp4", 30.0, "object"), ("v2.mp4", 8.5, "open")]
    results = {samples[0].id: said(samples[0].id, "cat"), samples[1].id: Result(samples[1].id, "failed")}
    assert benchmark.score(samples, results).extras == {"not judged": "give --judge-url and --judge-model"}
    found = benchmark.judge(samples, results, lambda prompt: "yes 5" if "cat" in prompt else "no 0")
    assert found.totals[JUDGED]["total"] == 0.5 and found.extras == {"judgements": 1, "unparsable": 0}
    (written,) = benchmark.export(tmp_path / "v.json", results, tmp_path)
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [(row["pred"], row["answer"]) for row in rows] == [("cat", "a cat"), ("", "a dog")]
    unclear = benchmark.judge(samples, results, lambda prompt: "maybe")
    assert unclear.totals[JUDGED]["total"] == 0.0 and unclear.extras["unparsable"] == 1


@pytest.mark.parametrize(
    "chain",
    [[{"Question": "one?", "Answer": "1"}, {"Question": "two?", "Answer": "2"}],
     {"Q1": "one?", "A1": "1", "Q2": "two?", "A2": "2"}],
)  # fmt: skip
def test_svbench_asks_a_chain_with_its_true_history_and_leaves_out_what_does_not_apply(
    tmp_path: Path, chain: object
) -> None:
    scene = {"chain": chain, "qac_timestamps_start": "00:00:01", "qac_timestamps_end": "00:00:12.5"}
    benchmark = SvBench()
    samples = benchmark.load(bench_data.write(tmp_path / "vid.json", [{}, scene]))
    assert [(s.truth, s.time, s.video) for s in samples] == [("1", 12.5, "vid.mp4"), ("2", 12.5, "vid.mp4")]
    assert samples[1].prompt.endswith("\n\ntwo?") and "one? 1" in samples[1].prompt
    reply = "Semantic Accuracy: 8\nTemporal Understanding: -1\nOverall: 6\n"
    found = benchmark.judge(samples, {s.id: said(s.id, "x") for s in samples}, lambda prompt: reply)
    assert found.totals[JUDGED] == {"total": 0.6}
    cells = found.cells[JUDGED]
    assert cells["Semantic Accuracy"].accuracy == 0.8 and "Temporal Understanding" not in cells
    assert found.extras["unparsable"] == 6, "three aspects without a grade, twice"
    (written,) = benchmark.export(tmp_path / "vid.json", {s.id: said(s.id, s.truth) for s in samples}, tmp_path / "out")
    assert written.name == "vid.json" and json.loads(written.read_text()) == [
        {"questions": ["one?", "two?"], "gt_answers": ["1", "2"], "answers": ["1", "2"]}
    ]


def test_commentary_is_compared_event_by_event_and_window_by_window(tmp_path: Path) -> None:
    event = {"video": "x/a.mp4", "video_id": "a", "event_id": 3, "begin": 2, "end": 6.4, "event_title": "final",
             "preasr_text": "so far", "event_asr_text": "goal"}  # fmt: skip
    (sample,) = LiveSports().load(bench_data.write(tmp_path / "cc.json", [event]))
    assert sample.alert is not None
    assert (sample.id, sample.video, sample.time, sample.alert.until) == ("a/3", "a.mp4", 2.0, 6.4)
    ours, theirs = {"a/3": said("a/3", "", (3.0, "goal"))}, {"a/3": said("a/3", "nothing")}
    with pytest.raises(ValueError, match="give its answers with --against"):
        LiveSports().judge([sample], ours, lambda p: "A")
    found = LiveSports().judge([sample], ours, lambda p: "A" if "Comment A:\ngoal" in p else "B", theirs)
    assert found.totals[JUDGED]["total"] == 1.0 and found.extras["judgements"] == 2
    endless = {
        "video": "long.mp4",
        "title": "t",
        "content": [[0, 900, "early"], [990, 1004, "one"], [1004, 1010, "two"]],
    }
    (stream,) = InfStreams().load(bench_data.write(tmp_path / "inf.jsonl", [endless]))
    assert stream.alert is not None and (stream.time, stream.alert.until) == (1000.0, 1010.0)
    mine = {"long.mp4": said("long.mp4", "", (1003.0, "one"), (1004.0, "one"), (1005.0, "two"))}
    seen: list[str] = []
    InfStreams().judge([stream], mine, lambda p: seen.append(p) or "A", mine)  # type: ignore[func-returns-value]
    assert len(seen) == 4 and "one one" in seen[0] and "two" not in seen[0] and "two" in seen[2]
    (path,) = InfStreams().export(tmp_path / "inf.jsonl", mine, tmp_path)
    assert json.loads(path.read_text())["items"][0] == {"end_time": 1003.0, "response": "one"}


def test_magqa_grades_what_is_said_within_each_span_and_silence_as_one(tmp_path: Path) -> None:
    row = {"question_id": "q1", "video_uid": "v", "conversation": [{"content": "what happens?", "time": 0}],
           "answer": [{"content": "a", "time": [2, 4]}, {"content": "b", "time": [6, 9]}]}  # fmt: skip
    (sample,) = Magqa().load(bench_data.write(tmp_path / "magqa.json", [row]))
    assert sample.alert is not None and (sample.alert.due, sample.alert.until) == ((2.0, 6.0), 9.0)
    result = {"q1": said("q1", "", (3.0, "x"), (3.5, "y"), (5.0, "between"))}
    found = Magqa().judge([sample], result, lambda p: "5" if "Answer: x" in p else "3")
    assert found.totals[JUDGED]["total"] == (1 + 0.5) / 2 / 2, "one span of two was silent"
    assert found.extras["turns"] == 3 and found.extras["judgements"] == 2


# Timing


@pytest.mark.parametrize(
    ("due", "called", "hits"),
    [((5.0,), (7.0,), 1), ((5.0,), (7.1,), 0), ((5.0,), (4.0, 6.0), 1), ((5.0, 6.0), (5.5,), 1),
     ((5.0, 8.0), (6.5, 6.6), 2), ((5.0,), (), 0)],
)  # fmt: skip
def test_each_moment_and_each_call_counts_once(due: Any, called: Any, hits: int) -> None:
    assert matches(due, called) == hits


def test_ovo_timing_f1_by_hand(tmp_path: Path) -> None:
    data = bench_data.ovo(tmp_path / "ovo.json")
    rows = json.loads(data.read_text())
    data = bench_data.write(data, [*rows, rows[-1] | {"id": 12}])  # a second CRR
    samples = OvoTiming().load(data)
    due = {s.id: s.alert.due for s in samples if s.alert}
    assert due == {"REC/9": (3.0,), "SSR/10": (4.0,), "CRR/11": (8.0,), "CRR/12": (8.0,)}
    results = {s.id: said(s.id, "") for s in samples}
    results["CRR/11"] = said("CRR/11", "", (9.5, ""), (20.0, ""))  # one hit of one moment and two calls
    found = OvoTiming().score(samples, results)
    # CRR: recall (1 + 0) / 2, precision (1/2 + 0) / 2; pooled, one hit of two moments and two calls.
    f1 = 2 * 0.5 * 0.25 / (0.5 + 0.25)
    assert found.totals["official"] == pytest.approx(
        {"REC F1": 0.0, "SSR F1": 0.0, "CRR F1": f1, "mean F1": f1 / 3}
    )  # fmt: skip
    assert found.extras["CRR F1, records pooled"] == 50.0
    (written,) = OvoTiming().export(data, results, tmp_path / "out")
    assert bench_rules.ovo_timing(written) == pytest.approx({"REC": 0.0, "SSR": 0.0, "CRR": f1})
    crr = next(s for s in samples if s.task == "CRR")
    assert crr.alert is not None and "what comes?" in crr.alert.condition and crr.time == 4.0


# A judge behind a server


class _Api(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))  # type: ignore[attr-defined]
        reply = {"choices": [{"message": {"content": "yes 5"}}]}
        self.send_response(500 if len(self.server.asked) == 1 else 200)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture
def api() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Api)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_is_asked_again_after_a_failure_and_nothing_is_asked_twice(
    api: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    url = f"http://127.0.0.1:{api.server_port}/v1"
    data = tmp_path / "v.json"
    record = {"video_id": "v", "question": "what?", "answer": "a cat", "duration": 30}
    bench_data.write(data, [record])
    (tmp_path / "answers.jsonl").write_text(said("0", "cat").line())
    arguments = ("score", "vstreamqa", "--data", data, "--answers", tmp_path / "answers.jsonl", "--judge-url", url)
    code, out, err = run_cli(*arguments, "--judge-model", "some-judge")
    assert code == 0, err
    found = json.loads(out)
    assert found["totals"] == {"judged": {"total": 100.0}} and found["judge"] == "some-judge"
    path, key, body = api.asked[-1]  # type: ignore[attr-defined]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["model"] == "some-judge" and body["temperature"] == 0 and "cat" in body["messages"][0]["content"]
    run_cli(*arguments, "--judge-model", "some-judge")
    assert len(api.asked) == 2, "one failed call, one reply, and then what was kept"  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_is_an_error_and_a_cut_line_of_what_was_kept_is_not(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="did not judge"):
        Server("http://127.0.0.1:9/v1", "none", timeout=1)("?")
    path = tmp_path / "judgements.jsonl"
    assert Kept(lambda p: "first", path)("?") == "first"
    path.write_text(path.read_text() + '\n{"prompt_sha256": "abc", "re')
    assert Kept(lambda p: "second", path)("?") == "first"
