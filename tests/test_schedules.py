"""Whatever order frames, questions and cancellations come in, no slot leaks and no token is lost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import random_model
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from streamvlm.engine.answer import Answer
from streamvlm.memory.slots import FREE

FRAMES = 60


class Watching(RuleBasedStateMachine):
    """A stream under a random life: frames arrive in bursts, people ask, lose patience, and ask again."""

    window_seconds = 4.0
    pinned_seconds = 1.0
    sink_frames = 1
    paced = True
    watched = 0  # blocks perceived before anything else happens

    def __init__(self) -> None:
        super().__init__()
        self.model = random_model("qwen3_vl")
        self.blocks = random_blocks(self.model, FRAMES)
        self.driver = Driver(self.model)
        self.stream = self.driver.watch(
            [],
            paced=self.paced,
            window_seconds=self.window_seconds,
            max_readers=3,
            max_answer_tokens=12,
            max_question_tokens=40,
            pinned_seconds=self.pinned_seconds,
            sink_frames=self.sink_frames,
            text_window=0,
            rebase_at=256,
        )
        self.stream.play_until = math.inf
        self.answers: list[Answer] = []
        self.shown = self.watched
        self.driver.show(self.stream, self.blocks[: self.watched])
        self.driver.step(self.watched)

    @rule(n=st.integers(1, 4))
    def frames_arrive(self, n: int) -> None:
        self.driver.show(self.stream, self.blocks[self.shown : self.shown + n])
        self.shown = min(FRAMES, self.shown + n)

    @rule(question=st.sampled_from(["?", "what is it?", "who, where, when?"]), seed=st.integers(0, 3))
    def somebody_asks(self, question: str, seed: int) -> None:
        self.answers.append(self.driver.ask(self.stream, question, temperature=1.5, seed=seed, min_new_tokens=9))

    @rule(data=st.data())
    def somebody_cancels(self, data: Any) -> None:
        if self.answers:
            data.draw(st.sampled_from(self.answers)).cancel()

    @rule(n=st.integers(1, 6))
    def time_passes(self, n: int) -> None:
        self.driver.step(n)

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if self.stream.window is None:
            return
        window = window_of(self.stream)
        window.check()
        assert window.cache.peak_used <= window.cache.shape.capacity
        stats = self.stream.stats
        assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped

    def teardown(self) -> None:
        if self.shown:
            self.driver.run()
            window = window_of(self.stream)
            assert all(a.done for a in self.answers)
            assert int((window.cache.reader != FREE).sum()) == len(window), "slots outlived their readers"


class Crowded(Watching):
    """A long window and hardly any room for what is evicted: answers are cut short all the time."""

    window_seconds = 12.0
    pinned_seconds = 0.0
    sink_frames = 0
    watched = 14


class CrowdedFile(Crowded):
    """The same, and the file waits for its answers instead."""

    paced = False


@pytest.mark.parametrize("life", [Watching, Crowded, CrowdedFile])
def test_random_schedules_leak_nothing(life: type[Watching]) -> None:
    with torch.inference_mode():
        run_state_machine_as_test(
            life,
            settings=settings(
                max_examples=25,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
