"""What a memory is after its stream was closed, or killed, and watched again; and the pictures in it."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import random_model
from PIL import Image
from test_agent import LONG, frames

from streamvlm import Agent, BlockStore, Frame, Gap, Moment, StoreError, WatchConfig, export_blocks, import_blocks
from streamvlm.engine.looks import LIMIT, Looks, small_picture
from streamvlm.engine.sessions import NAME, next_session, read_sessions

STORED = WatchConfig(window_seconds=3.0, max_answer_tokens=4, retrieve_tokens=400)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent(random_model("qwen3_vl"), watch=STORED) as agent:
        yield agent


def plain(level: int, count: int) -> Iterator[Frame]:
    """Frames of one grey, which their pictures must show."""
    for i in range(count):
        yield Frame(torch.full((3, 48, 64), level, dtype=torch.uint8), i * 0.5, 0.5)


def shown(moments: Sequence[Moment]) -> list[tuple[float, float, bytes]]:
    """All but the scores, which depend on what else the question saw."""
    return [(m.start, m.stop, m.thumbnail) for m in moments]


def grey(picture: bytes) -> int:
    """The grey that a picture shows."""
    image = Image.open(io.BytesIO(picture))
    assert image.format == "JPEG"
    found = image.convert("L").getpixel((5, 5))
    assert isinstance(found, int)
    return found


def test_what_was_in_the_window_at_the_end_is_stored_too(agent: Agent, tmp_path: Path) -> None:
    with agent.watch(frames(20), store=str(tmp_path / "m")) as stream:
        stream.wait(LONG)
        last = stream.now
    with agent.resume(tmp_path / "m") as past:
        assert last is not None
        assert past.recall("what was there?", between=(0.0, 0.5)), "the first frame, which is never evicted"
        assert past.recall("what was there?", between=(last, last + 0.5))


def test_watching_goes_on_in_the_same_memory(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with agent.watch(plain(40, 20), store=str(folder)) as stream:
        stream.wait(LONG)
    with agent.watch(plain(200, 20), store=str(folder)) as again:
        events = again.listen()
        again.wait(LONG)
        stats = again.stats
        seen = again.recall("what was there?", between=(2.0, 4.0))
        assert seen and all(abs(grey(m.thumbnail) - 40) < 4 for m in seen)
        start = read_sessions(folder)[1].start
        assert again.now is not None and again.now == pytest.approx(start + 9.5) and start > 10
        new = again.recall("what was there?", between=(start, start + 4.0))
        assert new and all(m.start >= start and abs(grey(m.thumbnail) - 200) < 4 for m in new)
        assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped
        assert stats.gap_seconds == pytest.approx(read_sessions(folder)[1].gap) and stats.gap_seconds >= 1
    gaps = [event for event in events if isinstance(event, Gap)]
    assert [(g.pts, g.seconds) for g in gaps] == [(start, stats.gap_seconds)]
    with agent.resume(folder) as past:
        assert shown(past.recall("what was there?", between=(2.0, 4.0))) == shown(seen)
        assert set(shown(new)) < set(shown(past.recall("what was there?", between=(start, start + 4.0))))


def test_the_clock_of_a_camera_goes_on_and_that_of_a_file_waits(tmp_path: Path) -> None:
    first = next_session(tmp_path, 0.0, live=True, clock=lambda: 1000.0)
    assert (first.start, first.gap) == (0.0, 0.0)
    camera = next_session(tmp_path, 60.0, live=True, clock=lambda: 4600.0)
    assert (camera.start, camera.gap) == (3600.0, 3540.0)
    file = next_session(tmp_path, 3700.0, live=False, clock=lambda: 9000.0)
    assert (file.start, file.gap) == (3701.0, 1.0)
    with (tmp_path / NAME).open("a") as lines:
        lines.write('{"start": 1')  # a crash while writing
    back = next_session(tmp_path, 3800.0, live=True, clock=lambda: 500.0)  # somebody set the clock back
    assert (back.start, back.gap) == (3801.0, 1.0)
    assert read_sessions(tmp_path) == [first, camera, file, back]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


KILLED = """
import sys
from families import random_model
from test_agent import frames
from streamvlm import Agent, WatchConfig
agent = Agent(random_model("qwen3_vl"), watch=WatchConfig(window_seconds=3.0))
stream = agent.watch(frames(400), store=sys.argv[1])
for event in stream.events():
    print(event.pts, flush=True)
"""


def test_watching_goes_on_after_a_kill(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout is not None
        while float(run.stdout.readline()) < 60.0:
            pass
        run.send_signal(signal.SIGKILL)
    with agent.watch(plain(200, 12), store=str(folder)) as again:
        again.wait(LONG)
        start = read_sessions(folder)[1].start
        moments = again.recall("what was there?", between=(2.0, 8.0))
        assert moments and all(m.thumbnail for m in moments)
        assert again.now == pytest.approx(start + 5.5)
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        assert store.verify() == []


def test_pictures_are_small_whatever_they_show() -> None:
    noise = torch.randint(0, 256, (3, 1080, 1920), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = small_picture(noise, 128)
    assert len(picture) <= LIMIT and Image.open(io.BytesIO(picture)).size == (128, 72)
    assert 0 < len(small_picture(noise, 600)) <= LIMIT
    assert small_picture(noise, 0) == b""
    small = small_picture(noise[:, :20, :30], 128)
    assert Image.open(io.BytesIO(small)).size == (30, 20), "nothing is enlarged"


def test_looks_of_what_has_left_are_forgotten() -> None:
    looks = Looks(16, lasting=1)
    tokens = random_model("qwen3_vl").encode(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), [(0.0, 1.0)])[0]
    for i, frame in enumerate(plain(9, 40)):
        looks.note([frame], replace(tokens, pts=i * 0.5))
    assert looks.take(15.0).picture
    assert [at for at, _ in looks.pictures([(0.0, 17.0)])] == [0.0, 15.5, 16.0, 16.5]
    assert looks.take(15.0).picture == b""


def test_an_answer_shows_what_it_was_given(agent: Agent, tmp_path: Path) -> None:
    with agent.watch(plain(120, 40), store=str(tmp_path / "m")) as stream:
        stream.wait(LONG)
        answer = stream.ask("what was there?")
        answer.text(LONG)
        assert answer.recalled and all(abs(grey(m.thumbnail) - 120) < 4 for m in answer.recalled)
        assert answer.in_view and all(abs(grey(glimpse.thumbnail) - 120) < 4 for glimpse in answer.in_view)
        assert all(any(a <= g.at < b for a, b in answer.evidence) for g in answer.in_view)
        past = stream.ask("what was there?", between=(2.0, 4.0))
        past.text(LONG)
        assert past.recalled and not past.in_view, "it sees the stretch and not the window"
    with agent.watch(plain(120, 20), store=str(tmp_path / "n"), store_pictures=0) as stream:
        stream.wait(LONG)
        answer = stream.ask("what was there?")
        answer.text(LONG)
        assert answer.recalled and not any(m.thumbnail for m in answer.recalled) and not answer.in_view


def moments_of(agent: Agent, folder: Path) -> tuple[Moment, ...]:
    with agent.resume(folder) as past:
        return past.recall("what was there?", between=(0.0, 100.0))


def test_a_damaged_picture_costs_the_picture_and_a_damaged_block_the_block(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with agent.watch(plain(120, 24), store=str(folder)) as stream:
        stream.wait(LONG)
    whole = moments_of(agent, folder)
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        first, second = list(store.blocks())[:2]
        assert store.picture(first)
    path = folder / "blocks" / "seg-000000.kv"
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8\xff", first.offset)  # where a JPEG starts
    assert at < first.offset + first.payload
    data[at + 40] ^= 16
    path.write_bytes(data)
    damaged = moments_of(agent, folder)
    assert [(m.start, m.score) for m in damaged] == [(m.start, m.score) for m in whole]
    assert sum(not m.thumbnail for m in damaged) == 1
    data[second.offset + second.payload + 5] ^= 16
    path.write_bytes(data)
    with agent.resume(folder) as past:
        answer = past.ask("what was there?", between=(0.0, 100.0))
        answer.text(LONG)
        assert len(answer.recalled) == len(whole) - 1 and answer.unreadable == 1
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        assert [problem.block for problem in store.verify()] == [first.id, second.id]


def test_pictures_are_exported_and_imported(agent: Agent, tmp_path: Path) -> None:
    with agent.watch(plain(90, 20), store=str(tmp_path / "m")) as stream:
        stream.wait(LONG)
    with BlockStore.open(tmp_path / "m" / "blocks", readonly=True) as store:
        entries = list(store.blocks())
        pictures = [store.picture(entry) for entry in entries]
        export_blocks(store, tmp_path / "file.safetensors", entries)
    import_blocks(tmp_path / "file.safetensors", tmp_path / "copy")
    with BlockStore.open(tmp_path / "copy", readonly=True) as copy:
        assert [copy.picture(entry) for entry in copy.blocks()] == pictures
    assert all(abs(grey(picture) - 90) < 4 for picture in pictures)


def test_sessions_that_cannot_be_written_are_a_clear_refusal(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with agent.watch(plain(90, 8), store=str(folder)) as stream:
        stream.wait(LONG)
    lines = (folder / NAME).read_text().splitlines()
    assert json.loads(lines[0])["start"] == 0
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        agent.watch(plain(90, 8), store=str(folder))
    (folder / NAME).rmdir()
    with agent.watch(plain(90, 8), store=str(folder)) as again:  # nothing kept the lock
        again.wait(LONG)
