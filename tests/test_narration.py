"""Narration: once a second a line, or nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks
from families import random_model
from test_agent import LONG, frames
from test_watches import guard

from streamvlm import Agent, Commentary, Narrated, StreamEnded, WatchFired, prompts
from streamvlm.engine.narration import Narration
from streamvlm.engine.stream import StreamState
from streamvlm.models.sampling import Sampler


def lines(narration: Narration, said: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    return [(time, line) for time, text in said if (line := narration.line(time, text))]


def test_what_is_said_again_the_second_after_is_one_event() -> None:
    said = [(1, "a ball enters"), (2, "a ball enters"), (3, "a ball enters"), (5, "a ball enters")]
    assert lines(Narration(), said) == [(1, "a ball enters"), (5, "a ball enters")]
    other = [(1, "a"), (2, "b"), (3, "a")]
    assert lines(Narration(), other) == other
    slow = [(4, "a"), (8, "a"), (12, "b"), (16, "a")]
    fast = [(0.5, "a"), (1.0, "b"), (1.5, "A."), (2.0, "a"), (4.0, "a")]
    assert lines(Narration(0.5), fast) == [(0.5, "a"), (1.0, "b"), (4.0, "a")]
    assert lines(Narration(4.0), slow) == slow  # no line is about more than the last second


def test_of_several_events_in_a_line_only_the_new_ones_are_told() -> None:
    said = [(1, "a; b"), (2, "b ;c"), (3, "b; nothing."), (4, "nothing"), (5, "b")]
    assert lines(Narration(), said) == [(1, "a; b"), (2, "c"), (5, "b")]


def test_nothing_is_no_event() -> None:
    assert lines(Narration(), [(1, prompts.NOTHING), (2, " Nothing. "), (3, ""), (4, "a  b\n")]) == [(4, "a b")]


def test_a_second_is_a_second_of_the_stream_and_none_piles_up() -> None:
    narration, due = Narration(), []
    for half in range(8):
        narration.saw(half / 2)
        due.append(narration.due)
        narration.due = False
    assert due == [True, False] * 4
    slow = Narration()
    for second in range(5):
        slow.saw(float(second))
    assert slow.due and slow.skipped == 4


def test_a_watch_that_goes_by_the_lines_misses_no_second_and_only_those_asked_for_are_told() -> None:
    narration, written, told = Narration(4.0), [], []
    for half in range(20):
        narration.saw(half / 2, watched=half < 10)
        if narration.due:
            written.append(half / 2)
            told += [half / 2] if narration.tells(half / 2) else []
        narration.due = False
    assert written == [0.0, 1.0, 2.0, 3.0, 4.0, 8.0] and told == [0.0, 4.0, 8.0]
    assert not Narration(told=False).tells(0.0)


class Says(Sampler):
    """Writes a given text, whatever the model would write."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def __call__(self, logits: torch.Tensor) -> int:
        return self.tokens.pop(0)


def speak(stream: StreamState, text: str) -> None:
    """Have the line that is being narrated say `text`."""
    for reader in stream.background:
        if not reader.tokens:
            (eos, *_) = stream.model.eos_tokens
            reader.sampler = Says([*stream.model.tokenize(text), eos])


def test_each_second_is_narrated_as_of_its_end() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 12), paced=False, ended=True)
    stream.play_until, stream.mind.narration = 1e9, Narration()
    texts = iter(["a ball enters", "a ball enters", prompts.NOTHING, "it is red", "nothing", "the end"])
    asked = None
    while driver.step():
        if stream.background and stream.background[0] is not asked:
            asked = stream.background[0]
            speak(stream, next(texts))
    told = [(e.pts, e.text) for e in driver.events if isinstance(e, Narrated)]
    assert told == [(0.0, "a ball enters"), (3.0, "it is red"), (5.0, "the end")]
    assert stream.frames == 12 and stream.ended


def test_a_file_is_narrated_whole_before_it_ends() -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(12), narrate=True) as stream:
        listener = stream.listen()
        stream.wait(LONG)
        story: list[Any] = []
        for event in listener:
            story.append(event)
            if isinstance(event, StreamEnded):
                break
        assert stream._state.mind.narration.skipped == 0
        told = [e.pts for e in story if isinstance(e, Narrated)]
        assert told == sorted(told) and set(told) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
        assert len(told) >= 4, "random weights always have something to say"


@pytest.mark.parametrize("narrate", [False, True])
def test_commentary_is_written_for_a_watch_and_told_only_where_it_is_wanted(narrate: bool) -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(12), narrate=narrate) as stream:
        listener = stream.listen()
        watch = stream.watch("anything", trigger=Commentary(), count=1)
        stream.wait(LONG)
        assert watch.looks >= 1 and watch.fired
        told = [e for e in itertools.takewhile(lambda e: not isinstance(e, StreamEnded), listener)]
        assert any(isinstance(e, WatchFired) for e in told)
        assert any(isinstance(e, Narrated) for e in told) == narrate


def test_nothing_is_narrated_once_no_watch_goes_by_it() -> None:
    driver = Driver(random_model("llava_onevision"))
    stream = driver.watch(random_blocks(driver.model, 12), paced=False, ended=True)
    stream.play_until = 1e9
    watch = guard(driver, stream, Commentary(("never said",)))
    driver.step(3)
    assert stream.mind.narrates
    watch.cancel()
    driver.run()
    assert not stream.mind.narrates and watch.looks <= 2


def test_a_file_ends_also_where_its_narration_has_no_room(caplog: pytest.LogCaptureFixture) -> None:
    with (
        Agent(random_model("llava_onevision")) as agent,
        agent.watch(frames(6), narrate=True, background_tokens=30) as stream,
    ):
        stream.wait(LONG)
        assert stream.ended and stream.stats.rows_thought == 0
    assert "does not fit into background_tokens" in caplog.text


def test_wrong_seconds_say_what_is_wrong() -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(2)) as stream:
        with pytest.raises(ValueError, match="every=0"):
            stream.narrate(every=0)
        stream.narrate(every=0.5)
        stream.narrate(every=None)
        stream.wait(LONG)
