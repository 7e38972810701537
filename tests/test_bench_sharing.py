"""Several ways of asking on one watching: the answers of each alone, costs of their own, the same after a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from streamvlm.benchmarks.core import commands, journal
from streamvlm.benchmarks.core.commands import RunOptions, WayOfAsking
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.benchmarks.core.protocol import LAST_4, SLIDING, STREAM
from streamvlm.benchmarks.core.sharing import WATCHING, watched_as
from streamvlm.benchmarks.suites.rendered import Rendered
from streamvlm.benchmarks.suites.streamworld import Exams, StreamWorld
from streamvlm.config import Config, SamplingConfig, WatchConfig
from streamvlm.world.story import Story

EXAMS = Exams(seed_base=3_200_000, seeds=1, per_cell=2, longest=0, watches=0, narrated=False, tail=20)
QUESTIONS = StreamWorld(EXAMS).adjusted(kinds=("episode", "color", "sign"))
CONFIG = Config(watch=WatchConfig(window_seconds=5.0), sampling=SamplingConfig(max_new_tokens=8))
WAYS = ("stream", "notes_alone", "memory", "notes")


def share(out: Path, ways: tuple[str, ...] = WAYS) -> None:
    told = QUESTIONS.adjusted(watches=1, narrated=True)  # only the first is told of anything
    asked = {
        way: WayOfAsking(told if way == ways[0] else QUESTIONS, RunOptions(way, out=out / way)) for way in ways
    }  # fmt: skip
    commands.run_shared(asked, out / WATCHING, CONFIG)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four ways on one watching."""
    out = tmp_path_factory.mktemp("shared")
    share(out)
    return out


@pytest.mark.parametrize("way", ["notes_alone", "notes"])
def test_a_way_that_shares_its_watching_answers_as_if_alone(shared: Path, tmp_path: Path, way: str) -> None:
    commands.run_benchmark(QUESTIONS, RunOptions(way, out=tmp_path), CONFIG)
    assert (shared / way / "results.jsonl").read_bytes() == (tmp_path / "results.jsonl").read_bytes()
    alone, together = journal.load(tmp_path), journal.load(shared / way)
    assert alone.stamp == together.stamp, "the one may be gone on with as the other"


def test_every_way_has_all_its_answers_and_their_costs_and_the_watching_its_own(shared: Path) -> None:
    runs = {way: journal.load(shared / way) for way in (*WAYS, WATCHING)}
    asked = {s.id for s in QUESTIONS.load(Path())}
    assert all(runs[way].results.keys() == asked for way in WAYS[1:])
    assert runs["stream"].results.keys() == runs[WATCHING].results.keys() > asked, "it is told of things as well"
    for way in WAYS:
        costs = [runs[way].costs[key] for key in asked]
        assert all(c.frames == c.tokens_in == 0 and c.rows_asked > 0 and c.ttft_s is not None for c in costs)
        assert any(c.rows_recalled for c in costs) == (way in ("memory", "notes"))
    watched = runs[WATCHING].costs.values()
    assert sum(c.frames for c in watched) == EXAMS.seconds * STREAM.fps
    assert sum(c.tokens_in for c in watched) > 0 and sum(c.rows_thought for c in watched) > 0
    read = {way: sum(runs[way].costs[key].rows_asked for key in asked) for way in WAYS}
    assert read["stream"] < read["memory"] and read["stream"] <= read["notes_alone"]


def test_what_was_killed_goes_on_to_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    """Each way may have been killed at another answer, the last of them half written."""
    again = tmp_path / "again"
    shutil.copytree(shared, again)
    for keep, way in zip((5, 4, 3, 2, 4), (*WAYS, WATCHING), strict=True):
        for name in ("results.jsonl", "costs.jsonl"):
            path = again / way / name
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[:keep]) + lines[keep][:20])
    share(again)
    for way in (*WAYS, WATCHING):
        assert (again / way / "results.jsonl").read_bytes() == (shared / way / "results.jsonl").read_bytes()
    frames = [sum(c.frames for c in journal.load(out / WATCHING).costs.values()) for out in (again, shared)]
    assert frames[0] == frames[1], "what is watched again for a kill is counted once"
    assert len(journal.load(again / WATCHING).starts) == 2
    share(again)
    assert len(journal.load(again / WATCHING).results) == len(journal.load(shared / WATCHING).results)


def test_only_ways_that_see_the_same_can_share() -> None:
    found = watched_as([STREAM, StreamWorld().protocols()["memory"], StreamWorld().protocols()["notes_alone"]])
    assert found.memory and found.notes and found.name == WATCHING
    assert not watched_as([STREAM]).memory
    for other in (SLIDING, LAST_4):
        with pytest.raises(ValueError, match="cannot share one watching"):
            watched_as([STREAM, other])


def test_a_stream_can_be_entered_anywhere_and_is_the_same_to_the_bit() -> None:
    footage = Rendered(Story(5), 64.0)
    whole = {frame.pts: frame.data for frame in footage.stream(2.0)}
    late = list(footage.since(29.2, 2.0))
    assert [frame.pts for frame in late] == [k / 2 for k in range(59, 128)], "over two chunks"
    assert all(torch.equal(frame.data, whole[frame.pts]) for frame in late)


def test_the_window_alone_is_what_a_young_stream_has_seen_and_of_an_old_one_no_more_than_the_window(
    tmp_path: Path,
) -> None:
    questions, window = QUESTIONS.adjusted(per_cell=6), 8.0
    config = replace(CONFIG, watch=WatchConfig(window_seconds=window))
    for way in ("afresh", "stream"):
        commands.run_benchmark(questions, RunOptions(way, out=tmp_path / way), config)
    alone, watched = (journal.load(tmp_path / way) for way in ("afresh", "stream"))
    times = {s.id: s.time for s in questions.load(Path())}
    young = [key for key, time in times.items() if time < window - 1]
    assert 3 <= len(young) < len(times)
    assert all(alone.results[key] == watched.results[key] for key in young), "nothing has been forgotten"
    assert {key: r.as_of for key, r in alone.results.items()} == {k: r.as_of for k, r in watched.results.items()}
    frames = {key: alone.costs[key].frames for key in times}
    assert all(abs(frames[key] - min(time, window) * STREAM.fps) <= 2 for key, time in times.items()), frames


def test_the_last_frames_are_answered_from_without_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = (("policy", "last_frames"),)
    commands.run_benchmark(QUESTIONS, RunOptions("stream", out=tmp_path / "entered", overrides=last), CONFIG)
    monkeypatch.setattr(Rendered, "seeks", Footage.seeks)
    commands.run_benchmark(QUESTIONS, RunOptions("stream", out=tmp_path / "watched", overrides=last), CONFIG)
    entered, watched = (journal.load(tmp_path / name) for name in ("entered", "watched"))
    assert entered.results == watched.results
    assert max(c.frames for c in entered.costs.values()) <= 8 < sum(c.frames for c in watched.costs.values())
