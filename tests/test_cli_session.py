"""A watched stream is reported to its end, whatever end that is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from families import random_model

from streamvlm import Agent, Frame, Rule, SamplingConfig, StreamStats
from streamvlm.cli.asks import RULES, Ask, WatchFor, is_watch, parse_watch
from streamvlm.cli.reports import COUNTERS, JsonReporter, PlainReporter
from streamvlm.cli.session import Reporter, Session


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def pictures(n: int, gap_before: int | None = None) -> Iterator[Frame]:
    for i in range(n):
        data = torch.full((3, 48, 64), 20 * i, dtype=torch.uint8)
        yield Frame(data, i / 2, 0.5, gap=1.5 if i == gap_before else 0.0)


def failing(n: int) -> Iterator[Frame]:
    yield from pictures(n)
    raise OSError("the cable was pulled")


def run_session(source: Iterator[Frame], reporter: Reporter, *asks: Ask) -> int:
    sampling = SamplingConfig(max_new_tokens=2)
    with Agent(random_model("qwen3_vl"), sampling=sampling) as agent, agent.watch(source) as stream:
        return Session(stream, reporter).run(asks)


def test_a_stream_that_fails_still_answers_about_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    code = run_session(failing(4), JsonReporter(), Ask("a", 0.5), Ask("b", 90.0), Ask("c"))
    *answers, end = json_lines(capsys.readouterr().out)
    assert code == 1
    assert [a["as_of"] for a in answers] == [0.5, 1.5, 1.5]
    assert {a["status"] for a in answers} <= {"complete", "truncated"}
    assert end["frames"] == 4
    assert "the cable was pulled" in end["error"]


@pytest.mark.parametrize("source", [pictures(0), failing(0)], ids=["empty", "failing"])
def test_a_stream_that_shows_nothing_answers_nothing_and_ends(
    source: Iterator[Frame], capsys: pytest.CaptureFixture[str]
) -> None:
    run_session(source, JsonReporter(), Ask("a", 0.5), Ask("b"))
    *answers, end = json_lines(capsys.readouterr().out)
    assert [(a["question"], a["status"], a["as_of"]) for a in answers] == [("a", "failed", None), ("b", "failed", None)]
    assert all(a["error"] for a in answers)
    assert end["frames"] == 0


def test_a_moment_that_is_past_cannot_be_asked_about_later() -> None:
    with Agent(random_model("qwen3_vl")) as agent, agent.watch(pictures(8)) as stream:
        stream.wait()
        session = Session(stream, JsonReporter())
        with pytest.raises(ValueError, match=re.escape("at=1.0 is past")):
            session.ask(Ask("what was that?", 1.0))


def test_what_the_source_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run_session(pictures(6, gap_before=4), JsonReporter())
    gap, _ = json_lines(capsys.readouterr().out)
    assert gap == {"event": "gap", "pts": 2.0, "seconds": 1.5}
    run_session(pictures(6, gap_before=4), PlainReporter())
    assert "the source lost 1.5 s" in capsys.readouterr().out


def test_an_error_is_on_the_end_line_only_if_there_was_one(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter()
    reporter.ended(StreamStats(), None)
    reporter.ended(StreamStats(), "why")
    good, bad = json_lines(capsys.readouterr().out)
    assert list(good) == ["event", *COUNTERS]
    assert bad == good | {"error": "why"}


def test_what_the_stream_says_by_itself_is_told_as_it_happens(capsys: pytest.CaptureFixture[str]) -> None:
    def run(reporter: Reporter) -> list[str]:
        sampling = SamplingConfig(max_new_tokens=2)
        watches = [WatchFor("it is there", {"sure": 0.0, "on": 0.0, "off": 0.0, "count": 1})]
        with Agent(random_model("qwen3_vl"), sampling=sampling) as agent:
            assert Session(agent.watch(pictures(8), narrate=True), reporter).run([], watches) == 0
        return capsys.readouterr().out.splitlines()

    events = json_lines("\n".join(run(JsonReporter())))
    fired = [e for e in events if e["event"] == "watch"]
    assert [(e["condition"], e["times"]) for e in fired] == [("it is there", 1)]
    assert list(fired[0]) == ["event", "pts", "condition", "probability", "since", "times"]
    assert all(list(e) == ["event", "pts", "text"] for e in events if e["event"] == "narration")
    assert any(e["event"] == "narration" for e in events)
    lines = run(PlainReporter())
    assert sum("it is there  !" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("text", "condition", "rule"),
    [
        ("the door is open", "the door is open", {}),
        ("it rains; count=2;cooldown=1.5", "it rains", {"count": 2, "cooldown": 1.5}),
        ("x; for-at-least=3; until=60", "x", {"for_at_least": 3.0, "until": 60.0}),
        ("x; rise=0; sure=0.8; on=0.7; off=0.5", "x", {"rise": 0.0, "sure": 0.8, "on": 0.7, "off": 0.5}),
    ],
)
def test_a_watch_is_read_with_its_rule(text: str, condition: str, rule: dict[str, Any]) -> None:
    assert parse_watch(text) == WatchFor(condition, rule)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("; count=1", "has no condition"),
        ("x; often", "'often' is none of count=N, for-at-least=SECONDS"),
        ("x; count=many", "'count=many' is none of count=N"),
        ("x; colour=1", "'colour=1' is none of count=N"),
        ("x; rise=-1", "rise=-1.0 must be 0 or more"),
        ("x; sure=0.5", r"off=0.4, on=0.6, sure=0.5 must be in order"),
    ],
)
def test_a_watch_that_is_not_understood_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_watch(text)


def test_every_rule_can_be_typed() -> None:
    assert RULES.keys() == {field.name for field in fields(Rule)}


@pytest.mark.parametrize(
    ("typed", "watch"),
    [("tell me when it rains", True), ("Let us know if it stops", True), ("when does it rain?", False)],
)
def test_asking_to_be_told_is_no_question(typed: str, watch: bool) -> None:
    assert is_watch(typed) == watch
