"""The parts of the benchmark harness: answers made plain, frames in time, results that survive."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from streamvlm import SourceError
from streamvlm.benchmarks.core import clip, journal, normalise
from streamvlm.benchmarks.core.journal import Journal, Shard
from streamvlm.benchmarks.core.protocol import LAST_4, UNIFORM_64, Protocol
from streamvlm.benchmarks.core.records import Alert, Cost, Result, Sample, Turn
from streamvlm.benchmarks.core.runner import Progress, by_video, readable, select


def sample(number: int, task: str = "t", video: str = "v", time: float = 1.0) -> Sample:
    return Sample(f"{task}/{number}", task, video, time, "?", "A", "choice", ("x", "y"))


# Answers


OPTIONS = ("A. a red car", "B. blue", "C. green", "D. blue and red")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), (" b ", "B"), ("(C)", "C"), ("D. blue and red", "D"), ("**B**", "B"), ("B) blue", "B"),
        ("The answer is C.", "C"), ("Answer: D", "D"), ("option b", "B"), ("It is B, I think", "B"),
        ("green", "C"), ("Green.", "C"), ("a red car", "A"), ("A", "A"), ("a", "A"),
        ("A man walks by", ""), ("ABCD", ""), ("A or B", ""), ("B. No, C", ""), ("E", ""), ("", ""),
        ("I can't tell", ""), ("The answer is a bit unclear", ""), ("purple", ""),
    ],
)  # fmt: skip
def test_one_letter_is_made_out_or_none(text: str, letter: str) -> None:
    assert normalise.letter(text, OPTIONS) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", "3"), ("3 times", "3"), ("three", "3"), ("03", "3"), ("1 of 2", ""), ("none", ""), ("3, yes 3", "3")],
)
def test_one_number_is_made_out_or_none(text: str, number: str) -> None:
    assert normalise.integer(text) == number


@pytest.mark.parametrize(
    ("text", "word"),
    [("Yes", "Yes"), ("no.", "No"), ("Y", "Yes"), ("Yes, not no", "Yes"), ("I would say no", "No"), ("Not sure", ""),
     ("yes and no", "Yes"), ("Either yes or no", ""), ("", "")],
)  # fmt: skip
def test_yes_or_no_is_made_out_or_nothing(text: str, word: str) -> None:
    assert normalise.yes_no(text) == word


# What is shown


@pytest.mark.parametrize(
    ("protocol", "stretch", "times"),
    [
        (Protocol("p", "clip", fps=1), (0, 3.5), [0, 1, 2, 3]),
        (Protocol("p", "clip", fps=0.5), (10, 14), [10, 12, 14]),
        (Protocol("p", "clip", frames=3), (0, 5), [0, 2.5, 5]),
        (LAST_4, (0, 10.5), [7.5, 8.5, 9.5, 10.5]),
        (LAST_4, (0, 1.5), [0.5, 1.5]),
        (LAST_4, (0, 0), [0]),
        (UNIFORM_64, (2, 2), [2]),
        (Protocol("p", "clip", slower=((4, 0.5), (8, 0.25))), (0, 4), [0, 2, 4]),
        (Protocol("p", "clip", slower=((4, 0.5), (8, 0.25))), (0, 8), [0, 4, 8]),
    ],
)
def test_frames_are_chosen_within_the_stretch(
    protocol: Protocol, stretch: tuple[float, float], times: list[float]
) -> None:
    assert protocol.sample_times(*stretch) == pytest.approx(times)


@pytest.mark.parametrize(("time", "asked"), [(3.0, 3.0), (3.01, 4.0), (0.03, 1.0)])
def test_whole_seconds_are_those_the_question_lies_in(time: float, asked: float) -> None:
    assert Protocol("p", "clip", whole_seconds=True).asked_at(time) == asked
    assert Protocol("p", "clip").asked_at(time) == time


def test_pictures_are_the_ones_on_screen_and_never_later(world_video: Path) -> None:
    """The video has two pictures a second; each is what decoding from the start gives, wherever one begins."""
    everything = {f.pts: f.data for f in clip.pictures(world_video, [k / 2 for k in range(60)])}
    assert len(everything) == 60
    rng = random.Random(1)
    for _ in range(5):
        times = sorted(rng.uniform(0, 29.4) for _ in range(4))
        shown = list(clip.pictures(world_video, times))
        distinct = sorted({int(2 * t) / 2 for t in times})
        assert len(shown) == len(distinct)
        for frame, moment in zip(shown, distinct, strict=True):
            assert (frame.data == everything[moment]).all()
            assert moment <= frame.pts < moment + 0.5, "the time asked for, not the picture's"
    assert clip.duration(world_video) == pytest.approx(30.0, abs=0.6)


def test_times_count_from_the_start_of_the_clip(world_video: Path) -> None:
    assert [f.pts for f in clip.pictures(world_video, [20.0, 21.0], origin=20.0)] == [0.0, 1.0]


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(SourceError, match=r"x\.mp4"):
        list(clip.pictures(tmp_path / "x.mp4", [0.0]))
    with pytest.raises(SourceError, match="missing"):
        clip.duration(tmp_path / "missing.mp4")


# Records


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time": -1.0}, "needs 0 <= start <= time"),
        ({"start": 2.0}, "needs 0 <= start <= time"),
        ({"options": ("x",)}, "needs 2 to 10 options, got 1"),
        ({"kind": "proactive"}, "a proactive sample, a commentary or a narration, and no other"),
        ({"kind": "poem"}, "kind must be one of"),
    ],
)
def test_a_wrong_sample_is_refused(fields: dict[str, Any], message: str) -> None:
    right = {"id": "x", "task": "t", "video": "v", "time": 1.0, "prompt": "?", "truth": "A", "kind": "choice"}
    with pytest.raises(ValueError, match=message):
        Sample(**{**right, "options": ("x", "y"), **fields})


def test_a_result_survives_its_line() -> None:
    result = Result("a/1", "answered", "ja\u2028 „so“\n", 1.5, (Turn("assistant", "red", 2.0),), "odd")
    assert Result.parse(result.line()) == result and result.line().count("\n") == 1
    assert Alert((3.0, 5.0), 9.0).poll == ""
    with pytest.raises(ValueError, match="not a result"):
        Result.parse('{"what": 1}')


# Results on disk


def start(**stamp: object) -> dict[str, Any]:
    return {"stamp": {"benchmark": "x", "samples": 3, **stamp}, "date": "today"}


def test_a_line_cut_short_by_a_kill_is_taken_off_and_done_again(tmp_path: Path) -> None:
    first = Journal(tmp_path, Shard(), start())
    for number in range(3):
        first.add(Result(str(number), "answered", "x"), Cost(str(number), 1.0))
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(whole[:-7])
    again = Journal(tmp_path, Shard(), start())
    assert again.done == {"0", "1"}
    again.add(Result("2", "answered", "x"), Cost("2", 1.0))
    assert (tmp_path / "results.jsonl").read_bytes() == whole
    found = journal.load(tmp_path)
    assert list(found.results) == ["0", "1", "2"] and len(found.starts) == 2


def test_a_folder_keeps_one_run(tmp_path: Path) -> None:
    Journal(tmp_path, Shard(), start())
    with pytest.raises(ValueError, match=r"made differently \(samples: 3 and 4\); use another folder"):
        Journal(tmp_path, Shard(), start(samples=4))
    with pytest.raises(ValueError, match="holds no run"):
        journal.load(tmp_path / "elsewhere")


def test_shards_are_put_together_once(tmp_path: Path) -> None:
    for index in range(2):
        Journal(tmp_path, Shard(index, 2), start()).add(Result(str(index), "answered"), Cost(str(index), 1.0))
    assert sorted(journal.load(tmp_path).results) == ["0", "1"]
    Journal(tmp_path, Shard(), start()).add(Result("0", "answered"), Cost("0", 1.0))
    with pytest.raises(ValueError, match="two results for 0"):
        journal.load(tmp_path)


def test_failed_samples_can_be_forgotten(tmp_path: Path) -> None:
    kept = Journal(tmp_path, Shard(), start())
    kept.add(Result("0", "failed", note="gone"), Cost("0", 0.0))
    kept.add(Result("1", "answered"), Cost("1", 1.0))
    assert kept.forget_failed() == 1 and kept.done == {"1"}
    assert list(journal.load(tmp_path).results) == ["1"]


@pytest.mark.parametrize(
    ("text", "message"), [("3/2", "1/n to n/n, got 3/2"), ("0/2", "got 0/2"), ("x", "written i/n")]
)
def test_a_wrong_shard_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shard.parse(text)


# Choosing samples


def test_a_limit_is_spread_over_tasks_and_over_the_file() -> None:
    samples = [*(sample(k, "a") for k in range(10)), *(sample(k, "b") for k in range(2))]
    assert [s.id for s in select(samples, 6)] == ["a/0", "a/2", "a/5", "a/7", "b/0", "b/1"]
    assert select(samples, None) == select(samples, 99) == samples
    with pytest.raises(ValueError, match="limit must be at least 1"):
        select(samples, 0)


def test_shards_have_every_video_once() -> None:
    samples = [sample(k, video=f"v{k % 5}") for k in range(20)]
    shards = [by_video(samples, Shard(k, 3)) for k in range(3)]
    assert sorted(v for shard in shards for v in shard) == [f"v{k}" for k in range(5)]
    assert sum(len(group) for shard in shards for group in shard.values()) == 20


def test_progress_tells_the_time_left() -> None:
    now = [0.0]
    progress = Progress(10, 8, clock=lambda: now[0])
    progress.tick(bad=False)
    progress.tick(bad=True)
    now[0] = 20.0
    assert progress.text() == "4/10 samples, 10.00 s each, 1 min 00 s left, 1 failed"
    assert [readable(s) for s in (5, 65, 7500)] == ["5 s", "1 min 05 s", "2 h 05 min"]
