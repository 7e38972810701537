"""The command line as people and programs use it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streamvlm import SamplingConfig, WatchConfig
from streamvlm.cli.app import app
from streamvlm.cli.asks import Ask, parse_ask, parse_asks
from streamvlm.cli.flags import HELP
from streamvlm.config import ModelConfig
from streamvlm.demo.chat.settings import ChatSettings
from streamvlm.version import __version__

ANSWER = ["event", "question", "asked_at", "as_of", "text", "tokens", "ttft_s", "status", "evidence"]
END = [
    "event",
    "frames",
    "frames_dropped",
    "tokens_seen",
    "tokens_window",
    "tokens_stored",
    "tokens_dropped",
    "peak_slots",
    "capacity",
]
COMMANDS = ["", "watch", "models", "doctor", "version", "train", "world", "world render"]
QUICK = ("--max-new-tokens", "3")


def streamvlm(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Help


def test_help_answers_without_loading_torch() -> None:
    script = """
import sys
from typer.testing import CliRunner, Result
from streamvlm.cli.app import app
for command in {commands!r}:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (command, result.output)
    heavy = sorted({{"torch", "transformers", "gradio", "av", "numpy"}} & set(sys.modules))
    assert not heavy, (command, heavy)
"""
    subprocess.run([sys.executable, "-c", script.format(commands=COMMANDS)], check=True, timeout=120)


def test_every_setting_is_a_flag_with_help() -> None:
    records = {"watch": (ModelConfig, WatchConfig, SamplingConfig), "chat": (ChatSettings,)}
    names = {command: [f.name for record in of for f in fields(record)] for command, of in records.items()}
    assert sorted(HELP) == sorted(name for of in names.values() for name in of)
    for command, settings in names.items():
        shown = re.sub(r"\x1b\[[0-9;]*m", "", streamvlm(command, "--help").stdout)
        for name in settings:
            assert f"--{name.replace('_', '-')} " in shown, (command, name)


def test_version() -> None:
    assert __version__ in streamvlm("version").stdout
    assert streamvlm("--version").stdout == streamvlm("version").stdout


# Questions as they are typed


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("5.0:what color is the circle?", Ask("what color is the circle?", 5.0)),
        (" 12 : what is it? ", Ask("what is it?", 12.0)),
        ("0:what?", Ask("what?", 0.0)),
        ("what color is the circle?", Ask("what color is the circle?")),
        ("note: what is it?", Ask("note: what is it?")),
        ("what is at 5:30?", Ask("what is at 5:30?")),
    ],
)
def test_a_question_with_and_without_its_time(text: str, ask: Ask) -> None:
    assert parse_ask(text) == ask


@pytest.mark.parametrize("text", ["-1:what?", "nan:what?", "inf:what?", "five:what?", "1:30:what?", "5.0:", "5: ", " "])
def test_a_question_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text.partition(":")[0])[:-1])):
        parse_ask(text)


def test_questions_are_sorted_by_time_and_those_without_come_last() -> None:
    assert [ask.question for ask in parse_asks(["end", "7:b", "2:a", "7:c"])] == ["a", "b", "c", "end"]


# watch --json


def test_json_has_a_line_for_every_answer_and_ends_with_the_counters(model_folder: Path, world_video: Path) -> None:
    asks = ["--ask", "at the end?", "--ask", "9:third?", "--ask", "0:first?", "--ask", "4.2:second?"]
    result = streamvlm("watch", world_video, "--model", model_folder, "--json", *QUICK, *asks)
    assert result.exit_code == 0, result.output
    *answers, end = json_lines(result.stdout)
    assert [list(answer) for answer in answers] == [ANSWER] * 4
    assert list(end) == END
    assert [a["question"] for a in answers] == ["first?", "second?", "third?", "at the end?"]
    assert [a["asked_at"] for a in answers] == [0.0, 4.2, 9.0, 29.5]
    assert [a["as_of"] for a in answers] == [0.5, 3.5, 8.5, 29.5]  # two frames are one patch
    for answer in answers:
        assert answer["status"] in ("complete", "truncated")
        assert 1 <= answer["tokens"] <= 3
        assert answer["ttft_s"] > 0
        assert answer["evidence"][0]["start"] == 0.0
        assert answer["evidence"][-1]["stop"] == answer["as_of"] + 0.5
    assert end["frames"] == 60
    assert end["tokens_seen"] == end["tokens_window"] + end["tokens_stored"] + end["tokens_dropped"]
    assert end["tokens_dropped"] > 0
    assert 0 < end["peak_slots"] <= end["capacity"]


def test_flags_go_before_the_environment_and_that_before_the_file(
    model_folder: Path, world_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[model]\nmodel = "{model_folder}"\n[watch]\nfps = 1.0\n[sampling]\nmax_new_tokens = 2\nmin_new_tokens = 1\n'
    )
    monkeypatch.setenv("STREAMVLM_MAX_NEW_TOKENS", "4")
    monkeypatch.setenv("STREAMVLM_MIN_NEW_TOKENS", "5")
    result = streamvlm("watch", world_video, "--config", file, "--json", "--ask", "2:a", "--min-new-tokens", "4")
    answer, end = json_lines(result.stdout)
    assert answer["tokens"] == 4
    assert end["frames"] == 30


def test_plain_lines_where_output_is_no_terminal(model_folder: Path, world_video: Path) -> None:
    result = streamvlm("watch", world_video, "--model", model_folder, *QUICK, "--ask", "3:what is it?")
    assert result.exit_code == 0
    answer, summary = result.stdout.splitlines()
    assert answer.split("->")[0].split() == ["3.0", "s", "what", "is", "it?"]
    assert summary.startswith("60 frames, 0 dropped; ")
    assert result.stdout.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.mp4"], 1, "missing.mp4"),
        (["VIDEO", "--model", "/no/such/folder"], 1, "/no/such/folder"),
        (["VIDEO", "--device", "cuda:99"], 1, "cuda:99"),
        (["VIDEO", "--policy", "forget"], 2, "--policy: policy must be one of sink_window, full"),
        (["VIDEO", "--fps", "0"], 2, "--fps: fps must be greater than 0"),
        (["VIDEO", "--config", "none.toml"], 2, "--config: no such file: none.toml"),
        (["VIDEO", "--ask", "soon:what is it?"], 2, "--ask: 'soon' is not a time in seconds"),
        (["VIDEO", "--ask", "-2:what is it?"], 2, "--ask: '-2:what is it?': the time must be 0 or more"),
        (["VIDEO", "--ask", "2:" + "what " * 200], 2, "max_question_tokens allows 256"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], code: int, said: str, model_folder: Path, world_video: Path
) -> None:
    result = streamvlm("watch", "--model", model_folder, *[world_video if a == "VIDEO" else a for a in arguments])
    assert result.exit_code == code
    # In this process the hub's code was loaded long ago, and with it whether to draw progress.
    (line,) = [line for line in result.stderr.splitlines() if line and "Loading weights" not in line]
    assert line.startswith("error: ")
    assert said in line
    assert result.stdout == ""


def test_interrupting_ends_with_every_answer_and_the_counters(model_folder: Path, world_video: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "streamvlm.cli",
        "watch",
        str(world_video),
        "--model",
        str(model_folder),
        "--json",
        "--realtime",
    ]
    command += ["--ask", "0.5:early?", "--ask", "29:late?", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors == ""
    late, end = json_lines(rest)
    assert (first["question"], late["question"]) == ("early?", "late?")
    assert late["status"] == "cancelled"
    assert list(end) == END
    assert 2 <= end["frames"] < 60


# models, doctor


def test_models_lists_the_families_and_tiny() -> None:
    rows = json.loads(streamvlm("models", "--json").stdout)
    assert rows[0]["model"] == "tiny"
    assert {row["family"] for row in rows} == {"qwen2_5_vl", "qwen3_vl", "llava_onevision"}
    table = streamvlm("models").stdout
    assert all(row["model"] in table for row in rows)


def test_doctor_examines_and_tries_the_whole_line() -> None:
    result = streamvlm("doctor", "--json")
    report = json.loads(result.stdout)
    marks = {finding["name"]: finding["mark"] for finding in report["findings"]}
    names = ["python", "platform", "torch", "accelerator", "transformers", "av", "decord", "faiss", "gradio", "tiny"]
    assert list(marks) == [*names, "self-test"]
    assert result.exit_code == 0, report
    assert report["ok"]
    assert marks["self-test"] == "ok"


def test_doctor_fails_where_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("streamvlm.cli.doctor.version", missing)
    monkeypatch.setattr("streamvlm.cli.doctor.find_spec", lambda name: None)
    result = streamvlm("doctor")
    assert result.exit_code == 1
    assert re.search(r"^fail transformers +not installed$", result.stdout, re.MULTILINE)
    assert re.search(r"^warn decord +not installed: PyAV reads video instead$", result.stdout, re.MULTILINE)
