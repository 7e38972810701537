"""What is watched for a session: going on in the memory it left, and the frames as the model was given them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from chatting import EARLY, Pictures, answered, sample_pictures, sample_question, session_in, show, until, watch_camera
from servers import RtspCamera, free_port

from streamvlm import Agent, WatchConfig
from streamvlm.demo.chat.pictures import decoded
from streamvlm.demo.chat.sources import WORLD, Choice, Sources
from streamvlm.demo.job import same


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent.from_pretrained("tiny", watch=WatchConfig(fps=2.0, window_seconds=4.0)) as agent:
        yield agent


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return sample_pictures()


def test_a_camera_is_watched_on_into_the_memory_it_left(agent: Agent, tmp_path: Path, pictures: Pictures) -> None:
    asked = sample_question(2.0, 9.0)
    session = session_in(tmp_path / "s", agent)
    watch_camera(session)
    show(session, pictures)
    before = session.picture(1, asked.time)
    session.put_away()

    again = session_in(tmp_path / "s", agent)
    watch_camera(again)
    run = again.run
    assert run is not None and run.number == again.runs == 1
    assert run.stream.began > pictures[-1][0]
    for at, picture in pictures[:4]:
        run.feed.push(picture, EARLY + at)  # type: ignore[attr-defined]
        until(lambda at=at: (run.stream.now or 0.0) >= run.stream.began + at - 1e-6)  # type: ignore[misc]
    assert again.picture(1, asked.time) == before is not None
    entry = again.ask(asked.question, about=asked.time)
    assert same(answered(again, entry), asked.answer)
    assert entry.moments and all(abs(start - asked.time) < 2.0 for start, _, _ in entry.moments)
    assert any("Watching on" in entry.text for entry in again.transcript.entries)
    again.start(Choice(WORLD, seed=3))
    assert again.runs == 2  # that is something else
    again.stop()
    again.start(Choice(WORLD, seed=4))
    assert again.runs == 3
    assert again.picture(1, asked.time) == before
    again.put_away()


def test_a_named_camera_is_watched_over_rtsp(agent: Agent, tmp_path: Path) -> None:
    with RtspCamera(free_port(), first=0, count=200) as camera:
        session = session_in(tmp_path / "s", agent, sources=Sources({"Yard": camera.url}))
        run = session.start(Choice("Yard"))
        run.preview_wanted = math.inf
        until(lambda: (run.stream.now or 0.0) > 0.4 and run.preview is not None, "a picture of the camera")
        state = session.state()
        assert (state["source"], state["kind"]) == ("Yard", "server")
        assert camera.url not in str(state)
        assert session.picture(run.number, 0.0) is not None
        session.stop()
    session.put_away()


def test_the_models_view_shows_what_it_was_given_and_shades_the_rest(tmp_path: Path, pictures: Pictures) -> None:
    with Agent.from_pretrained("tiny", watch=WatchConfig(fps=2.0, prune="dtd(refresh=1000)")) as agent:
        session = session_in(tmp_path / "s", agent)
        watch_camera(session)
        run = session.run
        assert run is not None
        show(session, pictures[:2])
        assert run.view is None  # nobody looks
        run.view_wanted = math.inf
        show(session, [(at + 1.0, pictures[1][1]) for at, _ in pictures[:8]])
        until(lambda: run.view is not None and run.view.pts >= 4.0)
        view = run.view
        assert view is not None and 0 <= view.kept < view.tokens
        seen, shown = decoded(view.picture, 10**6).float(), decoded(pictures[1][1], 10**6).float()
        assert seen.shape == shown.shape and seen.mean() < shown.mean() * (1 + view.kept / view.tokens) / 2
        session.put_away()
