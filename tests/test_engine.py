"""The engine's thread: that it ends when it is told to, and tells everybody when it fails."""

from __future__ import annotations

import asyncio
import threading

import pytest
from driver import Driver, random_blocks
from families import random_model
from test_agent import LONG, Camera, frames

from streamvlm import Agent, ModelError, StreamClosed
from streamvlm.engine.engine import Engine
from streamvlm.engine.signal import Signal


class StopsFirst(threading.Event):
    """A wake-up that somebody's `stop` always just precedes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def clear(self) -> None:
        self.engine._stopping = True
        self.set()
        super().clear()


class SeemsOpen(asyncio.SelectorEventLoop):
    """A loop as somebody sees it who looks just before it is closed."""

    seems_open = False

    def is_closed(self) -> bool:
        return not self.seems_open and super().is_closed()


def test_a_listener_whose_event_loop_has_closed_harms_nobody() -> None:
    loop, signal, changed = SeemsOpen(), Signal(), []
    loop.close()
    loop.seems_open = True
    signal._sleepers.add((loop, asyncio.Event()))
    with signal.changing():
        changed.append(True)
    loop.seems_open = False  # or it is closed again when it is collected
    assert signal.wait_for(lambda: bool(changed), timeout=0)


def test_a_stop_is_never_missed() -> None:
    engine = Engine(random_model("llava_onevision"))
    engine._wake = StopsFirst(engine)
    engine.start()
    engine._thread.join(20)
    assert not engine._thread.is_alive()


def test_what_was_accepted_before_the_stop_is_done() -> None:
    done = threading.Event()
    with Agent(random_model("llava_onevision")) as agent:
        engine = agent._engine

        def stop_meanwhile(stream: object) -> None:
            engine.submit(done.set)
            engine._stopping = True

        engine._on_step = stop_meanwhile
        agent.watch(frames(1))
        engine._thread.join(20)
        assert done.is_set()
        with pytest.raises(StreamClosed, match="engine has stopped"):
            engine.submit(done.set)


def test_an_engine_that_fails_tells_every_stream() -> None:
    def fail(stream: object) -> None:
        raise KeyError("a bug")

    with Agent(random_model("llava_onevision")) as agent:
        agent._engine._on_step = fail
        camera = Camera(1)
        other = agent.watch(camera)
        answer = other.ask("anything?", at=1.0)
        stream = agent.watch(frames(3))
        for watching in (stream, other):
            with pytest.raises(ModelError, match="the engine failed: KeyError"):
                watching.wait(LONG)
        with pytest.raises(ModelError, match="a bug"):
            answer.text(LONG)
        assert camera.closed


def test_a_cache_too_large_for_this_machine_ends_only_its_stream() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    huge = driver.watch(random_blocks(model, 4), window_seconds=1e12)
    other = driver.watch(random_blocks(model, 4))
    answer = driver.ask(huge, "what?")
    driver.run()
    assert isinstance(huge.error, ModelError) and isinstance(answer.error, ModelError)
    assert other.frames == 4
