"""Whole runs with `tiny`: causal, complete, and the same after a kill or in shards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_data
import pytest
from typer.testing import CliRunner

from streamvlm import Agent
from streamvlm.benchmarks.core import commands, journal
from streamvlm.benchmarks.core.commands import RunOptions
from streamvlm.benchmarks.core.footage import VideoFile
from streamvlm.benchmarks.core.journal import Shard
from streamvlm.benchmarks.core.players import Setting
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.core.runner import PLAYERS
from streamvlm.benchmarks.suites import streamingbench_files as files
from streamvlm.benchmarks.suites.ovobench import OvoBench
from streamvlm.benchmarks.suites.streamingbench import StreamingBench
from streamvlm.cli.app import app
from streamvlm.config import Config
from streamvlm.world.video import VideoSpec, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of both benchmarks, and videos of the right names and lengths."""
    root = tmp_path_factory.mktemp("bench")
    bench_data.ovo(root / "ovo.json")
    bench_data.streaming(root / "streaming")
    for name, seed in (("some/a.mp4", 1), ("b.mp4", 2)):
        render(seed, 18.0, root / "made", VideoSpec(fps=4, size=64), questions=1)
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "made" / "video.mp4").rename(root / "videos" / name)
    (root / "videos" / "a.mp4").symlink_to(root / "videos" / "some" / "a.mp4")
    return root


def options(folder: Path, out: Path, protocol: str = "official", **more: Any) -> RunOptions:
    overrides = (("frames", 8),) if protocol == "official" else ()
    return RunOptions(protocol, folder / "ovo.json", folder / "videos", out, overrides=overrides, **more)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """One run without interruption."""
    out = folder / "whole"
    commands.run_benchmark(OvoBench(), options(folder, out), Config())
    return out


def test_every_sample_has_one_result_and_a_cost(whole: Path, folder: Path) -> None:
    found = journal.load(whole)
    samples = OvoBench().load(folder / "ovo.json")
    assert sorted(found.results) == sorted(s.id for s in samples) == sorted(found.costs)
    for s in samples:
        result, cost = found.results[s.id], found.costs[s.id]
        assert result.status == "answered" and result.as_of is not None
        assert 0 <= result.as_of <= s.time + 1, "asked at the end of its second, and no later"
        assert 1 <= cost.frames <= 8 and cost.tokens_in > 0 and cost.ttft_s is not None
        assert (cost.tokens_out > 0) == bool(result.text), "a model may have nothing to say"
    stamp = found.stamp
    assert stamp["protocol"]["frames"] == 8 and stamp["protocol"]["name"] == "official+frames=8"
    assert stamp["annotations"]["name"] == "ovo.json" and len(stamp["annotations"]["sha256"]) == 64
    assert stamp["model"]["model"] == "tiny" and stamp["samples"] == 15 and "mean of the three" in stamp["average"]
    assert found.starts[0]["machine"]["cores"] and "commit" in found.starts[0]["git"]


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(whole: Path, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamvlm.cli", "bench", "run", "ovobench", "--data", str(folder / "ovo.json")]
    command += ["--videos", str(folder / "videos"), "--frames", "8", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = tmp_path / "results.jsonl"
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = results.read_bytes()
    assert 2 <= before.count(b"\n") < 15
    commands.run_benchmark(OvoBench(), options(folder, tmp_path), Config())
    after = results.read_bytes()
    assert after == (whole / "results.jsonl").read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1]), "nothing is done twice"
    assert len(journal.load(tmp_path).starts) == 2


def test_two_shards_are_one_run(whole: Path, folder: Path, tmp_path: Path) -> None:
    for index in range(2):
        commands.run_benchmark(OvoBench(), options(folder, tmp_path, shard=Shard(index, 2)), Config())
    both, one = journal.load(tmp_path), journal.load(whole)
    assert both.results == one.results and both.stamp == one.stamp
    first = (tmp_path / "results.1-of-2.jsonl").read_bytes() + (tmp_path / "results.2-of-2.jsonl").read_bytes()
    assert sorted(first.splitlines()) == sorted((whole / "results.jsonl").read_bytes().splitlines())
    scores = commands.summary(OvoBench(), folder / "ovo.json", tmp_path)
    assert scores["counts"]["missing"] == 0 and scores["usage"]["tokens_out"] > 0


def test_a_video_that_is_missing_or_damaged_costs_its_samples_only(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "b.mp4").write_bytes(b"damaged")
    for protocol in ("last4", "sliding"):
        wanted = RunOptions(protocol, folder / "ovo.json", videos, tmp_path / protocol)
        commands.run_benchmark(OvoBench(), wanted, Config())
        found = journal.load(tmp_path / protocol)
        assert len(found.results) == 15
        assert {r.status for r in found.results.values()} == {"failed"}
        assert all(r.note.startswith("SourceError: ") for r in found.results.values())
        scores = commands.summary(OvoBench(), folder / "ovo.json", tmp_path / protocol)
        assert scores["counts"]["failed"] == 15 and scores["totals"]["official"]["total"] == 0.0
    (videos / "b.mp4").unlink()
    (videos / "b.mp4").symlink_to(folder / "videos" / "b.mp4")
    wanted = RunOptions("last4", folder / "ovo.json", videos, tmp_path / "last4", retry=True)
    commands.run_benchmark(OvoBench(), wanted, Config())
    scores = commands.summary(OvoBench(), folder / "ovo.json", tmp_path / "last4")
    assert 0 < scores["counts"]["failed"] < 15, "with --retry only what still fails"


@pytest.fixture(scope="module")
def agent() -> Any:
    with Agent.from_pretrained("tiny") as made:
        yield made


def play(agent: Agent, protocol: Protocol, samples: list[Sample], video: Path) -> list[Result]:
    player = PLAYERS[protocol.replay](Setting(protocol, agent))
    return [result for result, _ in player.play(samples, VideoFile(video))]


def colors(*times: float) -> list[Sample]:
    return [Sample(f"x/{t}", "x", "v", t, "what number is on the sign?", "1", "word") for t in times]


@pytest.mark.parametrize("replay", ["clip", "stream"])
def test_a_question_cannot_see_its_future(agent: Agent, folder: Path, replay: Any) -> None:
    """The same question at the same moment of a video that goes on is answered as of a video that ends there."""
    long, short = folder / "videos" / "b.mp4", folder / "short.mp4"
    if not short.exists():
        render(2, 9.0, folder / "cut", VideoSpec(fps=4, size=64), questions=1)
        (folder / "cut" / "video.mp4").rename(short)
    protocol = Protocol("p", replay, fps=2.0)
    early = play(agent, protocol, colors(3.0, 8.0, 16.0), long)
    assert [r.text for r in early[:2]] == [r.text for r in play(agent, protocol, colors(3.0, 8.0), short)]
    assert [r.as_of for r in early] == [3.0, 8.0, 16.0]


def test_streamed_once_or_again_from_the_middle_gives_the_same(agent: Agent, folder: Path) -> None:
    protocol = Protocol("p", "stream", policy="sink_window", fps=2.0)
    video = folder / "videos" / "b.mp4"
    questions = colors(2.0, 5.5, 9.0, 13.0)
    assert play(agent, protocol, questions, video)[2:] == play(agent, protocol, questions[2:], video)


def test_a_question_after_the_end_is_answered_and_noted(agent: Agent, folder: Path) -> None:
    for replay in ("clip", "stream"):
        protocol = Protocol("p", replay, fps=1.0)
        (result,) = play(agent, protocol, colors(12450.0), folder / "videos" / "b.mp4")
        assert result.status == "answered"
        assert result.note.startswith("asked at 12450 s, the video ends at 1")


def test_polling_ends_at_the_first_yes_or_the_horizon(folder: Path, tmp_path: Path) -> None:
    wanted = RunOptions("official", folder / "streaming", folder / "videos", tmp_path)
    commands.run_benchmark(StreamingBench(), wanted, Config())
    found = journal.load(tmp_path)
    samples = {s.id: s for s in StreamingBench().load(folder / "streaming") if s.kind == "proactive"}
    for key, sample in samples.items():
        turns, alert = found.results[key].turns, sample.alert
        assert alert is not None
        asked = [t.time for t in turns if t.content == alert.poll]
        assert asked == [sample.time + k for k in range(1, len(asked) + 1)] and asked[-1] <= alert.until
        agreed = ["yes" in t.content.lower() for t in turns if t.role == "assistant"]
        assert not any(agreed[: len(asked) - 1])
        if not agreed[len(asked) - 1]:
            assert asked[-1] == alert.until
    for part in StreamingBench().export(folder / "streaming", found.results, tmp_path / "out"):
        assert json.loads(part.read_text())


def test_context_is_the_last_minute(folder: Path, agent: Agent) -> None:
    protocol = replace(StreamingBench().protocols()["official"], context=5.0)
    player = PLAYERS["clip"](Setting(protocol, agent))
    results = [*player.play(colors(12.0), VideoFile(folder / "videos" / "b.mp4"))]
    assert results[0][1].frames == 6 and results[0][0].as_of == 12.0


# The command line


def run_cli(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_scores_of_a_baseline_and_of_a_run_on_the_command_line(whole: Path, folder: Path, tmp_path: Path) -> None:
    code, out, _ = run_cli("score", "ovobench", "--data", folder / "ovo.json", "--baseline", "constant")
    assert code == 0 and json.loads(out)["counts"]["answered"] == 15
    code, out, _ = run_cli("score", "ovobench", "--data", folder / "ovo.json", "--answers", whole, "--export", tmp_path)
    found = json.loads(out)
    assert found["exported"] == [str(tmp_path / "MiniCPM_o" / "MiniCPM_o.json")]
    code, again, _ = run_cli("score", "ovobench", "--data", folder / "ovo.json", "--answers", found["exported"][0])
    assert json.loads(again)["cells"]["official"] == found["cells"]["official"]


def test_constant_runs_without_a_model_and_the_last_line_is_the_score(folder: Path, tmp_path: Path) -> None:
    code, out, _ = run_cli(
        "run", "ovobench", "--data", folder / "ovo.json", "--protocol", "constant", "--limit", 12, "--out", tmp_path
    )
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and found["counts"] == {"samples": 12, "answered": 12, "failed": 0, "missing": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "nothing", "--baseline", "constant"), "there is no benchmark 'nothing'; there are streamworld"),
        (("score", "ovobench", "--baseline", "constant"), "ovobench needs its annotations (--data)"),
        (("score", "ovobench"), "give either --answers or --baseline"),
        (("run", "ovobench", "--shard", "3"), "a shard is written i/n"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run_cli(*arguments)
    assert code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_an_unknown_protocol_is_told_with_those_there_are(folder: Path) -> None:
    code, _, err = run_cli("run", "ovobench", "--data", folder / "ovo.json", "--protocol", "quick")
    assert code == 2 and "it has official, stream, constant, blind, last4, uniform64, sliding" in err


def test_videos_are_asked_for_before_a_model_is_loaded(folder: Path) -> None:
    code, _, err = run_cli("run", "ovobench", "--data", folder / "ovo.json", "--model", "/nowhere")
    assert code == 2 and "ovobench needs the folder of its videos (--videos)" in err


def test_the_list_names_every_benchmark_and_its_home() -> None:
    code, out, _ = run_cli("list")
    assert code == 0 and "ovobench" in out and "streamingbench" in out and "huggingface.co" in out


def test_watches_are_told_the_request_and_no_more_and_the_first_call_counts(folder: Path, tmp_path: Path) -> None:
    """Native streaming: nothing about the expected output or its time reaches the model before the request does."""
    data = bench_data.streaming(tmp_path / "streaming")
    samples = {s.id: s for s in StreamingBench().load(data) if s.kind == "proactive"}
    wanted = RunOptions("stream", data / "questions_proactive.json", folder / "videos", tmp_path / "run")
    commands.run_benchmark(StreamingBench(), wanted, Config())
    found = journal.load(tmp_path / "run").results
    assert found.keys() == {k for k, s in samples.items() if s.group == "proactive"}
    for key, result in found.items():
        alert = samples[key].alert
        assert alert is not None and result.status == "answered" and len(result.turns) <= 1
        assert all(samples[key].time <= t.time <= alert.until for t in result.turns)
        assert alert.condition in ('At red, output "red".', 'At seven, output "7".')


@pytest.mark.parametrize(
    ("request_", "condition"),
    [
        ('When the scoreboard shows 3 points for USA, output "3".', "the scoreboard shows 3 points for USA"),
        ('Once the red light is on, please output "stop".', "the red light is on"),
        ("Tell me about it.", "Tell me about it."),
    ],
)
def test_what_a_request_waits_for(request_: str, condition: str) -> None:
    assert files.condition(request_) == condition


def test_a_commentary_has_a_line_a_second(agent: Agent, folder: Path) -> None:
    sample = Sample("c", "c", "v", 2.0, "go on.", "", "commentary", alert=Alert((2.0,), 6.0))
    protocol = Protocol("p", "stream", policy="sink_window", fps=2.0)
    (result,) = play(agent, protocol, [sample], folder / "videos" / "b.mp4")
    assert [t.time for t in result.turns] == [3.0, 4.0, 5.0, 6.0] and result.as_of == 6.0


def test_a_question_too_long_for_its_room_fails_alone(agent: Agent, folder: Path) -> None:
    long = replace(colors(4.0)[0], prompt="what? " * 5000)
    for replay in ("clip", "stream"):
        protocol = Protocol("p", replay, fps=1.0)
        results = play(agent, protocol, [*colors(2.0), long, *colors(6.0)], folder / "videos" / "b.mp4")
        assert [r.status for r in results] == ["answered", "failed", "answered"]
        assert "max_question_tokens" in results[1].note


@pytest.mark.slow
def test_processes_of_accelerate_share_a_run(whole: Path, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "streamvlm.cli", "bench", "run", "ovobench", "--data", str(folder / "ovo.json")]
    command += ["--videos", str(folder / "videos")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, "--frames", "8", "--out", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.glob("results*")) == ["results.1-of-2.jsonl", "results.2-of-2.jsonl"]
    assert journal.load(tmp_path).results == journal.load(whole).results
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["counts"]["missing"] == 0, "the first process scores when all are done"


def test_every_frame_of_a_stream_is_somebodys_cost_once(agent: Agent, folder: Path) -> None:
    watched = Sample("w", "w", "v", 0.0, "", "", "proactive", alert=Alert((3.0,), 12.0, condition="there is a sign"))
    player = PLAYERS["stream"](Setting(Protocol("p", "stream", policy="sink_window", fps=2.0), agent))
    outcomes = list(player.play([watched, *colors(4.0, 9.0)], VideoFile(folder / "videos" / "b.mp4")))
    assert len(outcomes) == 3
    assert sum(cost.frames for _, cost in outcomes) == 26, "12.5 s at two frames a second, and the first"
