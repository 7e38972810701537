"""A long life: random questions, cancels, watches, thoughts and stalls, and nothing is left of them at the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families import random_model
from test_agent import LONG

from streamvlm import Agent, Answer, Frame, FramePerceived, Stream, StreamEnded, Watch
from streamvlm.engine.stream import StreamState
from streamvlm.memory.slots import FREE

HOUR = 7200  # frames at 2 per second


class Life:
    """A camera whose next frame comes when the one before has been dealt with, and people around it."""

    live = True

    def __init__(self, frames: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.closed = False
        self._frames = frames
        self._next = threading.Semaphore(1)

    def __iter__(self) -> Iterator[Frame]:
        generator = torch.Generator().manual_seed(self.rng.randrange(1000))
        pictures = torch.randint(0, 256, (8, 3, 32, 48), dtype=torch.uint8, generator=generator)
        pts = 0.0
        for _ in range(self._frames):
            self._next.acquire()
            if self.closed:
                return
            gap = self.rng.choice((0.0,) * 20 + (0.7, 5.0))  # the source stalls now and then
            pts += 0.5 + gap
            yield Frame(pictures[self.rng.randrange(8)], pts, 0.5, gap=gap)

    def go_on(self) -> None:
        self._next.release()

    def close(self) -> None:
        self.closed = True
        self._next.release()


class People:
    """Ask, lose patience, watch, and stop watching, as they please."""

    def __init__(self, stream: Stream, rng: random.Random) -> None:
        self.answers: list[Answer] = []
        self.watches: list[Watch] = []
        self._stream = stream
        self._rng = rng

    def act(self) -> None:
        choice = self._rng.random()
        if choice < 0.2:
            options: dict[str, Any] = {"temperature": 1.5, "seed": self._rng.randrange(99), "max_new_tokens": 8}
            self.answers.append(self._stream.ask("what is it?", **options))
        elif choice < 0.3 and self.answers:
            self._rng.choice(self.answers[-5:]).cancel()
        elif choice < 0.34 and len(self.watches) < 200:
            options = {"count": 1} if self._rng.random() < 0.5 else {"cooldown": 3.0}
            self.watches.append(self._stream.watch(f"it is {len(self.watches)}", on=0.3, off=0.2, **options))
        elif choice < 0.4 and self.watches:
            self._rng.choice(self.watches).cancel()
        elif choice < 0.42:
            self._stream.narrate(self._rng.choice((None, 1.0, 2.0)))


def live(frames: int, seed: int = 0) -> None:
    """One such life; slots and tokens are accounted for after every 16th step."""
    before, steps = threading.active_count(), 0

    def check(state: StreamState) -> None:
        nonlocal steps
        steps += 1
        if steps % 16 == 0 and state.window is not None:
            state.window.check()

    with Agent(random_model("llava_onevision")) as agent:
        agent._engine._on_step = check
        life = Life(frames, seed)
        with agent.watch(life, notes=True, window_seconds=4.0, max_readers=3, max_answer_tokens=12) as stream:
            people = People(stream, random.Random(seed))
            for event in stream.events():
                if isinstance(event, StreamEnded):
                    break
                if isinstance(event, FramePerceived):
                    people.act()
                    life.go_on()
            for answer in people.answers:
                assert answer._signal.wait_for(lambda a=answer: a.done, LONG)  # type: ignore[misc]
            settled(stream)
            assert stream.stats.frames == frames and stream.error is None
            assert all(watch.over for watch in people.watches)
        assert life.closed
    assert threading.active_count() == before, "a thread outlived its stream"
    assert steps > frames


def settled(stream: Stream) -> None:
    """Every slot that is not the window's is free again."""
    done = threading.Event()
    left: list[int] = []

    def look() -> None:
        window = stream._state.window
        assert window is not None
        window.check()
        left.append(int((window.cache.reader != FREE).sum()) - len(window))
        left.append(len(stream._state.readers) + len(stream._state.background) + len(stream._state.mind.sentries))
        done.set()

    stream._engine.submit(look)
    assert done.wait(LONG)
    assert left == [0, 0]


def test_a_few_minutes_of_random_life_leave_nothing_behind() -> None:
    live(240)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_an_hour_of_random_life_leaves_nothing_behind() -> None:
    live(HOUR, seed=1)
