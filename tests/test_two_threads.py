"""The baseline that perceives and writes on a thread each: what one thread ends while the other computes it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import random_model
from test_agent import LONG, Camera

from streamvlm import Agent, ModelError, StreamClosed
from streamvlm.engine.answer import Answer
from streamvlm.engine.step import Outcome, StreamWork
from streamvlm.engine.stream import StreamState
from streamvlm.engine.two_threads import TwoThreadEngine


class Halves:
    """Two streams that are being asked, stepped by hand as a thread does: planned and made ready, then computed."""

    def __init__(self) -> None:
        self.driver = Driver(random_model("llava_onevision"))
        self.engine = self.driver.engine = TwoThreadEngine(self.driver.model)
        self.streams = [self.driver.watch(random_blocks(self.driver.model, 2, seed=i)) for i in range(2)]
        self.turn()
        self.answers = [self.driver.ask(s, "what is it?", max_new_tokens=6) for s in self.streams]
        while not all(a.tokens for a in self.answers):
            self.turn()

    @torch.inference_mode()
    def turn(self, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """One step; `meanwhile` happens on the other thread."""
        works = self.engine.plan(0.0)
        if not works:
            return False
        run = self.engine.ready(works)
        meanwhile()
        return self.engine.carry(works, 0.0, run)

    def finish(self) -> list[Answer]:
        while self.turn():
            pass
        return self.answers


def close(stream: StreamState) -> None:
    stream.close(StreamClosed("the stream is closed"))


def test_a_stream_closed_between_planning_and_computing_takes_nobody_with_it() -> None:
    undisturbed = Halves().finish()[1]
    halves = Halves()
    assert halves.turn(lambda: close(halves.streams[0]))
    gone, kept = halves.finish()
    assert gone.status == "failed" and isinstance(gone.error, StreamClosed)
    assert (kept.status, kept.so_far) == (undisturbed.status, undisturbed.so_far)
    window_of(halves.streams[1]).check()


def test_an_answer_cut_short_while_its_token_is_computed_is_left_as_it_is() -> None:
    halves = Halves()
    (stream, other), (cut, kept) = halves.streams, halves.answers
    written = cut.tokens
    assert halves.turn(lambda: stream.close_reader(stream.readers[0], "truncated"))  # as a frame does that needs room
    halves.finish()
    assert (cut.status, cut.tokens) == ("truncated", written) and kept.done
    window_of(stream).check()
    window_of(other).check()


def test_what_ends_the_writing_thread_is_told_to_whoever_waits(caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera(4)
    with Agent(random_model("llava_onevision"), schedule="two_threads") as agent, agent.watch(camera) as stream:
        ready = agent._engine.ready

        def fail(works: list[StreamWork]) -> Callable[[], Outcome]:
            if any(work.turns for work in works):
                raise KeyError("a bug")
            return ready(works)

        agent._engine.ready = fail  # type: ignore[method-assign]
        camera.show(2)
        answer = stream.ask("what is it?")
        with caplog.at_level(logging.CRITICAL, "streamvlm"), pytest.raises(ModelError, match="a bug"):
            answer.text(LONG)
