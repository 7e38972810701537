"""Traces: what is written, and what is read out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from families import random_model
from test_agent import LONG, Camera, frames
from typer.testing import CliRunner

from streamvlm import Agent, chrome_trace, read_trace, summarise_trace
from streamvlm.cli.app import app


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace of a camera that was watched and asked."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    with Agent(random_model("llava_onevision")) as agent:
        camera = Camera(6, gap_before=4)
        with agent.watch(camera, trace=str(path), fps=1.0) as stream:
            events = iter(stream.events())
            for _ in range(3):
                camera.show(1)
                next(e for e in events if e.type == "frame")
            stream.ask("what is it?", max_new_tokens=5).text(LONG)
            camera.show(3)
            next(e for e in events if e.type == "end")
    return path


def test_every_frame_and_token_is_there_in_order(traced: Path) -> None:
    lines = read_trace(traced)
    found = summarise_trace(lines)
    assert found["frames"] + found["frames_dropped"] == 6 and found["frames"] >= 4
    assert found["gap_seconds"] == 1.5
    assert found["events"]["decoded"] == 6 and found["events"]["token"] >= 1
    assert [line["t"] for line in lines if line["what"] == "committed"] == sorted(
        line["t"] for line in lines if line["what"] == "committed"
    )
    assert 0 < found["lag"]["p50"] <= found["lag"]["p90"] <= found["lag"]["p99"] <= found["lag"]["max"]
    assert all(times is not None and times["p50"] >= -1e-3 for times in found["stages"].values())


def line(what: str, t: float, **fields: Any) -> dict[str, Any]:
    return {"what": what, "t": t, **fields}


def test_the_figures_are_those_of_the_lines() -> None:
    lines = []
    for i in range(100):
        lines += [line("decoded", i + 0.01, pts=float(i), captured=float(i)), line("encoded", i + 0.03, pts=float(i))]
        lag = 1.0 if i == 50 else 0.05
        lines.append(line("committed", i + lag, pts=float(i), lag=lag, step=0.01, rows=9))
    lines.append(line("dropped", 100.0, pts=99.5, frames=3))
    found = summarise_trace(lines)
    assert found["lag"] == {"p50": 0.05, "p90": 0.05, "p99": 0.05, "max": 1.0}
    assert found["stages"]["decode"]["p50"] == 0.01 and found["stages"]["encode"]["p50"] == 0.02
    assert found["frames"] == 100 and found["frames_dropped"] == 3 and found["per_call"] is None


def test_patches_to_a_call_are_told_of_the_calls_of_the_shared_tower() -> None:
    """Two calls, of one patch and of three; a patch that needed none is not counted."""
    lines = [line("committed", float(i), pts=float(i), lag=None, batch=n) for i, n in enumerate((1, 3, 3, 3, 0))]
    assert summarise_trace(lines)["per_call"] == 2.0


def test_a_file_that_nobody_captured_has_no_lag(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(3), trace=str(path)) as stream:
        stream.wait(LONG)
    found = summarise_trace(read_trace(path))
    assert found["frames"] == 3 and found["lag"] is None and found["stages"]["encode"] is not None
    shown = CliRunner().invoke(app, ["trace", "view", str(path)])
    assert shown.exit_code == 0 and "not captured" in shown.output


def test_the_command_prints_percentiles_and_converts(traced: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["trace", "view", str(traced)])
    assert shown.exit_code == 0
    for text in ("p50", "p99", "lag", "encode", "frames", "1.5 s lost", "to a call of the vision tower"):
        assert text in shown.output
    told = CliRunner().invoke(app, ["trace", "view", str(traced), "--json"])
    assert json.loads(told.output) == summarise_trace(read_trace(traced))
    out = tmp_path / "chrome.json"
    assert CliRunner().invoke(app, ["trace", "convert", str(traced), str(out)]).exit_code == 0
    events = json.loads(out.read_text())["traceEvents"]
    assert events == chrome_trace(read_trace(traced))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert {e["args"]["name"] for e in events if e["ph"] == "M"} >= {"decode", "encode", "commit"}
    assert spans and all(e["dur"] >= 0 and isinstance(e["tid"], int) for e in spans)


def test_what_is_no_trace_is_refused_and_a_torn_end_is_not(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"what": "gap", "t": 1.0, "pts": 1.0, "seconds": 2.0}\n{"what": "ga')
    assert len(read_trace(path)) == 1
    path.write_text('hello\n{"what": "gap", "t": 1.0}\n')
    refused = CliRunner().invoke(app, ["trace", "view", str(path)])
    assert refused.exit_code == 1 and "is no line of a trace" in refused.output


def test_a_trace_that_cannot_be_written_is_told_and_leaves_nothing_open(tmp_path: Path) -> None:
    with Agent(random_model("llava_onevision")) as agent:
        camera = Camera(2)
        with pytest.raises(ValueError, match="cannot be written"):
            agent.watch(camera, trace=str(tmp_path / "missing" / "t.jsonl"), store=str(tmp_path / "store"))
        assert camera.closed
        with agent.watch(frames(2), store=str(tmp_path / "store")) as stream:
            stream.wait(LONG)
