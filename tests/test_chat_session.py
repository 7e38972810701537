"""A visitor's session against the embedded model: watching, asking, keeping, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from chatting import Pictures, answered, sample_pictures, sample_question, session_in, show, watch_camera

from streamvlm import Agent, LoadChanged, Narrated, Note, NoteTaken, StreamEnded, WatchConfig, WatchFired
from streamvlm.demo.chat.commands import carry_out
from streamvlm.demo.chat.feeds import FileFeed
from streamvlm.demo.chat.hearing import hear
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Full, Refused
from streamvlm.demo.chat.sessions import Sessions
from streamvlm.demo.chat.sources import Sources
from streamvlm.demo.job import same

SAMPLE = Path(__file__).resolve().parent.parent / "demo" / "sample.mp4"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent.from_pretrained("tiny", watch=WatchConfig(fps=2.0, window_seconds=4.0)) as agent:
        yield agent


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return sample_pictures()


def test_a_question_is_answered_while_a_camera_plays(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    asked = sample_question(2.0, 12.0)
    session = session_in(tmp_path / "s", agent)
    watch_camera(session)
    show(session, [p for p in pictures if p[0] <= asked.time])
    entry = session.ask(asked.question)
    show(session, [p for p in pictures if p[0] > asked.time])
    assert same(answered(session, entry), asked.answer)
    assert entry.as_of is not None and entry.as_of <= asked.time
    assert entry.evidence
    shown = session.picture(entry.run, entry.as_of)
    assert shown is not None and entry.as_of - 1.0 <= shown[0] <= entry.as_of
    session.put_away()


def test_what_was_seen_and_said_is_there_after_a_restart(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    asked = sample_question(2.0, 9.0)
    session = session_in(tmp_path / "s", agent)
    watch_camera(session)
    show(session, pictures)
    answered(session, session.ask("how many objects are there?"))
    session.put_away()

    again = session_in(tmp_path / "s", agent)
    assert [e.text for e in again.transcript.entries] == [e.text for e in session.transcript.entries]
    assert again.picture(1, asked.time) is not None
    entry = again.ask(asked.question, about=asked.time)
    assert same(answered(again, entry), asked.answer)
    assert entry.moments
    again.put_away()


def test_several_questions_are_open_and_one_is_stopped(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    session = session_in(tmp_path / "s", agent, Limits(questions=2))
    watch_camera(session)  # nothing has been seen yet, so answers wait
    first, second = session.ask("how many objects are there?"), session.ask("is there a sign?")
    with pytest.raises(Refused, match="2 questions are open"):
        session.ask("one more?")
    session.cancel(first.number)
    assert answered(session, first) == ""
    assert first.status == "cancelled"
    show(session, pictures[:4])
    answered(session, second)
    assert second.status == "complete"
    session.again(second.number)
    assert session.transcript.entries[-1].text == second.text
    session.put_away()


def test_deleting_a_session_leaves_nothing(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    session = session_in(tmp_path / "s", agent)
    watch_camera(session)
    show(session, pictures)
    session.save()
    assert session.size() > 0
    session.delete()
    assert not (tmp_path / "s").exists()


def test_files_of_a_session_are_for_nobody_else(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    session = session_in(tmp_path / "s", agent)
    watch_camera(session)
    show(session, pictures)
    session.put_away()
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert "session.json" in {path.name for path in files} and len(files) > 2
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def places(agent: Agent, folder: Path, now: list[float], **limits: Any) -> Sessions:
    return Sessions(agent, Sources(), folder, Limits(**limits), now=lambda: now[0])


def test_visitors_share_nothing_and_the_last_one_is_told_that_it_is_full(agent: Agent, tmp_path: Path) -> None:
    now = [0.0]
    sessions = places(agent, tmp_path, now, visitors=2)
    ann, bob = sessions.enter("ann"), sessions.enter("bob")
    ann.transcript.add("notice", "for Ann alone", run=0)
    assert bob.transcript.entries == []
    assert ann.folder != bob.folder
    assert "ann" not in str(ann.folder.relative_to(tmp_path))
    with pytest.raises(Full, match="All 2 places"):
        sessions.of("eve")
    assert sessions.of("ann") is ann
    sessions.leave(bob)
    bob.used, now[0] = 0.0, 120.0
    assert sessions.of("eve").transcript.entries == []  # Bob was gone long enough to make room
    sessions.close()


def test_an_idle_session_is_put_away_and_comes_back(agent: Agent, tmp_path: Path) -> None:
    now = [0.0]
    sessions = places(agent, tmp_path, now, idle_minutes=10)
    ann = sessions.enter("ann")
    ann.transcript.add("notice", "hello", run=0)
    now[0] = 10_000.0
    sessions.tidy()
    assert sessions.awake == [ann]  # her page is open
    sessions.leave(ann)
    ann.used = 0.0
    sessions.tidy()
    assert sessions.awake == []
    back = sessions.of("ann")
    assert back is not ann
    assert [entry.text for entry in back.transcript.entries] == ["hello"]
    sessions.close()


def test_what_was_kept_long_enough_is_deleted(agent: Agent, tmp_path: Path) -> None:
    import os

    now = [1e9]
    sessions = places(agent, tmp_path, now, retention_days=1)
    ann = sessions.of("ann")
    ann.transcript.add("notice", "hello", run=0)
    sessions.close()
    os.utime(ann.folder / "session.json", (1e9, 1e9))
    now[0] += 0.9 * 86400
    sessions.tidy()
    assert ann.folder.exists()
    now[0] += 0.2 * 86400
    sessions.tidy()
    assert not ann.folder.exists()


def numbered_video(path: Path, seconds: float, fps: int = 4) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(round(seconds * fps)):
            picture = np.full((64, 64, 3), index * 4 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_file_waits_for_its_player_skips_with_it_and_does_not_go_back(tmp_path: Path) -> None:
    feed = FileFeed("file", str(numbered_video(tmp_path / "v.mp4", 12.0)), fps=2.0)
    assert next(feed).pts == 0.0
    feed.follow(1.5, False, 1.0)  # paused: what came before is due, more is not
    assert [next(feed).pts for _ in range(3)] == [0.5, 1.0, 1.5]
    feed.follow(8.0, False, 1.0)
    skipped = next(feed)
    assert skipped.pts == 7.0
    assert skipped.gap == pytest.approx(5.0)
    feed.follow(1.0, True, 16.0)  # back to what was seen, and playing fast: the next frame is a new one
    assert next(feed).pts == 7.5
    feed.close()
    assert list(feed) == []


def test_what_is_waited_for_is_kept_paused_and_removed(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    session = session_in(tmp_path / "s", agent, Limits(watches=2))
    board = session.board
    carry_out(session, {"op": "watch", "text": "tell me when there is a sign"})  # before anything is watched
    watch_camera(session)
    carry_out(session, {"op": "watch", "text": "a circle is red"})
    show(session, pictures[:6])
    assert [row["condition"] for row in board.rows()] == ["tell me when there is a sign", "a circle is red"]
    assert all(0 <= row["probability"] <= 1 for row in board.rows())
    for text, why in (("more", "2 things"), (" ", "Say what")):
        with pytest.raises(Refused, match=why):
            board.add(text)
    carry_out(session, {"op": "watch_pause", "entry": 1, "on": True})
    assert [row["paused"] for row in board.rows()] == [True, False]
    session.put_away()
    again = session_in(tmp_path / "s", agent)
    assert [(row["condition"], row["paused"]) for row in again.board.rows()] == [
        ("tell me when there is a sign", True),
        ("a circle is red", False),
    ]
    carry_out(again, {"op": "watch_remove", "entry": 1})
    assert [row["number"] for row in again.board.rows()] == [2]
    again.put_away()


def test_what_the_stream_says_by_itself_is_entered(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    session = session_in(tmp_path / "s", agent)
    session.board.add("the sign shows 97")
    watch_camera(session)
    run = session.run
    assert run is not None
    show(session, pictures[:4])
    hear(session, run, WatchFired(1.0, "the sign shows 97", 0.97, 0.5, 1))
    hear(session, run, WatchFired(1.5, "it was taken off the list", 0.97, 0.5, 1))
    hear(session, run, Narrated(1.5, "a circle comes in"))
    hear(session, run, NoteTaken(1.5, Note(1, 0.5, 1.0, "observation", "a circle came in")))
    hear(session, run, LoadChanged(1.5, 4, "low resolution"))
    said = [(e.kind, e.text, e.at) for e in session.transcript.entries[1:]]
    assert said == [
        ("fired", "the sign shows 97", 1.0),
        ("narration", "a circle comes in", 1.5),
        ("note", "a circle came in", 0.5),
    ]
    assert session.board.rows()[0]["firings"] == [(1, 1.0)]
    assert session.state()["load"] == "seeing less sharply"
    hear(session, run, LoadChanged(2.0, 0, "calm"))
    assert session.state()["load"] == ""
    hear(session, run, LoadChanged(2.5, 7, "no questions"))
    hear(session, run, StreamEnded(3.0, run.stream.stats))
    assert session.state()["load"] == ""  # nothing has to be kept up with any more
    session.put_away()
