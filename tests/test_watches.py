"""Watches: when they look, what they conclude, and that they say it once."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from driver import Driver, random_blocks
from families import random_model
from test_agent import LONG, Camera, frames

from streamvlm import Agent, FramePerceived, StreamClosed, WatchFired, prompts
from streamvlm.engine.alarm import FEWEST, Alarm, Rule
from streamvlm.engine.answer import Answer
from streamvlm.engine.perceiver import Block
from streamvlm.engine.sight import Change
from streamvlm.engine.stream import StreamState
from streamvlm.engine.triggers.base import Evidence, Reads, Trigger
from streamvlm.engine.triggers.probe import Probe
from streamvlm.engine.watches import HEARTBEAT, Sentry, Watch, condition_in


def fires(alarm: Alarm, *looks: tuple[float, float]) -> list[tuple[float, float]]:
    """(when, since when) for looks of (time, probability)."""
    found = [(time, alarm.look(time, p)) for time, p in looks]
    return [(time, since) for time, since in found if since is not None]


@pytest.mark.parametrize(
    ("rule", "looks", "fired"),
    [
        ({}, [(0, 0.1), (1, 0.95), (2, 0.95), (3, 0.95)], [(1, 1)]),
        ({}, [(0, 0.1), (1, 0.7), (2, 0.1), (3, 0.7), (4, 0.7)], [(4, 3)]),
        ({}, [(0, 0.95), (1, 0.5), (2, 0.95), (3, 0.1), (4, 0.95)], [(0, 0), (4, 4)]),
        ({"count": 2}, [(i, 0.95 * (i % 2)) for i in range(9)], [(1, 1), (3, 3)]),
        ({"for_at_least": 2.5}, [(1, 0.95), (2, 0.95), (3, 0.1), (4, 0.9), (5, 0.7), (7, 0.9)], [(7, 4)]),
        ({"cooldown": 5.0}, [(0, 1), (1, 0), (2, 1), (3, 0), (6, 1)], [(0, 0), (6, 6)]),
        ({"cooldown": 5.0}, [(0, 1), (1, 0), (2, 1), (6, 1)], [(0, 0), (6, 2)]),
        ({"until": 3.0}, [(2, 0.1), (4, 0.95)], []),
    ],
)
def test_a_watch_fires_when_it_becomes_true_and_only_then(rule: Any, looks: Any, fired: Any) -> None:
    assert fires(Alarm(Rule(**rule)), *looks) == fired


def test_what_is_half_believed_all_the_time_must_rise_above_that() -> None:
    hesitant = [(float(i), (0.3, 0.55, 0.3, 0.65)[i % 4]) for i in range(41)]
    again = [(41.0, 0.65), (42.0, 0.65)]
    assert fires(Alarm(Rule(rise=0)), *hesitant, *again) == [(42, 41)]
    alarm = Alarm(Rule())
    assert fires(alarm, *hesitant, *again) == [], "twice as probable as it often is for nothing"
    assert alarm.usual == pytest.approx(math.log(0.65 / 0.35))
    assert fires(alarm, (43.0, 0.3), (44.0, 0.97)) == [(44, 44)]


def test_what_was_true_is_no_measure_of_what_is_false() -> None:
    alarm = Alarm(Rule())
    seen = [(float(i), 0.02) for i in range(10)] + [(10.0 + i, 0.97) for i in range(70)] + [(80.0, 0.02)]
    assert fires(alarm, *seen, (81.0, 0.7), (82.0, 0.7)) == [(10, 10), (82, 81)]


def test_before_anything_is_known_of_it_the_probability_alone_counts() -> None:
    looks = [(float(i), 0.55) for i in range(FEWEST - 1)]
    assert fires(Alarm(Rule()), *looks, (20.0, 0.9)) == [(20, 20)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"off": 0.8, "on": 0.5}, "must be in order"),
        ({"count": 0}, "count=0"),
        ({"cooldown": -1.0}, "cooldown=-1.0"),
        ({"rise": -0.5}, "rise=-0.5"),
        ({"until": math.nan}, "until=nan"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**rule)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("tell me when the sign shows 42", "the sign shows 42"),
        ("Please let me know as soon as it rains.", "it rains."),
        ("the door is open", "the door is open"),
        ("Alert us if somebody falls", "somebody falls"),
    ],
)
def test_the_condition_is_found_in_what_people_say(said: str, meant: str) -> None:
    assert condition_in(said) == meant


def test_a_still_picture_is_asked_about_now_and_then_only() -> None:
    sentry = Sentry(Watch("x", Probe(), Rule(), None), Alarm(Rule()), lambda event: None)
    moving, still, asked = Change(0.5, 0.5, 0.1), Change(0.0, 1.0, 0.0), []
    for second in range(40):
        sentry.saw(float(second), moving if second == 20 else still, 1.0)
        if sentry.due:
            asked.append(second)
            sentry.look(float(second), 0.0)
    assert {20, 21, 22} <= set(asked), "a change is looked at until it has settled"
    assert len(asked) < 16
    times = [0, *asked, 40]
    assert max(b - a for a, b in itertools.pairwise(times)) <= HEARTBEAT


class Scripted(Trigger):
    """The model is really asked, but what it says is written beforehand, by the moment it is asked about."""

    reads: ClassVar[Reads] = "answer"

    def __init__(self, script: dict[float, float]) -> None:
        self.script = script

    def question(self, condition: str) -> str:
        return prompts.watch_probe(condition)

    def probability(self, seen: Evidence) -> float:
        assert seen.logits is not None
        return self.script[max(time for time in self.script if time <= seen.moment)]


def guard(
    driver: Driver,
    stream: StreamState,
    trigger: Trigger,
    condition: str = "it moves",
    explain: str | None = None,
    **rule: Any,
) -> Watch:
    watch = Watch(condition, trigger, Rule(**rule), explain)
    stream.mind.add(Sentry(watch, Alarm(watch.rule), driver.events.append))
    return watch


def test_all_watches_of_a_moment_are_probed_in_one_step_and_nothing_is_written() -> None:
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 3), paced=False, background_tokens=2000)  # with no time to keep
    stream.play_until = 1e9
    watches = [guard(driver, stream, Probe(), f"condition {i}") for i in range(6)]
    driver.step()
    assert len(stream.background) == 6
    driver.step()
    assert [w.looks for w in watches] == [1] * 6
    assert all(w.probability is not None and 0 <= w.probability <= 1 for w in watches)


def test_a_probe_reads_what_an_answer_would_have_begun_with() -> None:
    model = random_model("qwen2_5_vl")
    blocks = random_blocks(model, 2)
    driver = Driver(model)
    stream = driver.watch(blocks[:1])
    watch = guard(driver, stream, Probe(), "the door is open")
    driver.step(2)
    asked = Driver(model)
    other = asked.watch(blocks[:1])
    asked.step()
    answer = asked.ask(other, prompts.watch_probe("the door is open"))
    asked.run()
    first = asked.recordings[answer].logits[0]
    assert watch.probability == pytest.approx(Probe().probability(Evidence(model, 0.0, logits=first)), abs=1e-5)


def test_a_probe_compares_yes_with_no() -> None:
    model = random_model("qwen3_vl")
    yes, no = model.tokenize("yes")[0], model.tokenize("No")[0]
    logits = torch.full((len(model.tokenizer),), -20.0)
    logits[yes], logits[no] = 2.0, 1.0
    sure = Probe().probability(Evidence(model, 0.0, logits=logits))
    assert sure == pytest.approx(1 / (1 + math.exp(-1.0)), abs=1e-3)
    assert Probe(bias=1.0).probability(Evidence(model, 0.0, logits=logits)) == pytest.approx(0.5, abs=1e-3)
    assert Probe(temperature=0.1).probability(Evidence(model, 0.0, logits=logits)) > 0.99


def test_it_fires_with_its_evidence_once_per_onset() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 14))
    trigger = Scripted({0.0: 0.05, 3.0: 0.97})
    watch = guard(driver, stream, trigger)
    driver.run()
    (event,) = [e for e in driver.events if isinstance(e, WatchFired)]
    assert watch.fired == (event,)
    assert (event.pts, event.since, event.times, event.condition) == (3.0, 3.0, 1, "it moves")
    assert event.probability == 0.97


def explained(driver: Driver) -> tuple[WatchFired, Answer]:
    (event,) = [e for e in driver.events if isinstance(e, WatchFired)]
    assert event.answer is not None
    return event, event.answer


def test_an_explanation_is_about_the_moment_it_fired_though_frames_came_before_it_was_known() -> None:
    model = random_model("qwen2_5_vl")
    blocks = random_blocks(model, 8)
    driver = Driver(model)
    stream = driver.watch(blocks, pinned_seconds=60.0, max_answer_tokens=8)
    guard(driver, stream, Scripted({0.0: 0.05, 2.5: 0.97}), explain="what is it?", count=1)
    while not any(isinstance(e, WatchFired) for e in driver.events):
        driver.step()
    event, answer = explained(driver)
    assert stream.now > event.pts, "frames and the probe go through the model together"
    driver.run()
    asked = Driver(model)
    other = asked.watch(blocks, pinned_seconds=60.0, max_answer_tokens=8)
    twin = asked.ask(other, "what is it?", at=event.pts)
    asked.run()
    assert (answer.as_of, answer.evidence, answer.so_far) == (event.pts, twin.evidence, twin.so_far)
    assert answer.status == twin.status


class Spoken(Scripted):
    """As Scripted, at the lines of the narration."""

    reads: ClassVar[Reads] = "line"

    def probability(self, seen: Evidence) -> float:
        return 1.0


def test_an_explanation_of_what_narration_said_is_about_the_moment_narrated() -> None:
    model = random_model("qwen3_vl")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 12), pinned_seconds=60.0, max_answer_tokens=4)
    guard(driver, stream, Spoken({}), explain="what is it?", count=1)
    driver.run()
    event, answer = explained(driver)
    assert answer.as_of == event.pts and answer.done and stream.now > event.pts


def test_a_watch_that_is_over_asks_nothing_more() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 12))
    once = guard(driver, stream, Scripted({0.0: 0.99}), count=1)
    gone = guard(driver, stream, Scripted({0.0: 0.01}))
    driver.step(3)
    gone.cancel()
    looks = gone.looks
    driver.run()
    assert once.over and once.looks == 1 and len(once.fired) == 1
    assert gone.looks <= looks + 1 and not stream.mind.sentries
    assert list(once) == list(once.fired)


def test_a_trigger_that_fails_ends_its_own_watch_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Scripted):
        def probability(self, seen: Evidence) -> float:
            raise KeyError("a bug")

    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 6))
    broken, sound = guard(driver, stream, Broken({})), guard(driver, stream, Scripted({0.0: 0.99}))
    with caplog.at_level(logging.CRITICAL, "streamvlm"):
        driver.run()
    assert broken.over and isinstance(broken.error, KeyError)
    assert len(sound.fired) == 1 and stream.frames == 6
    with pytest.raises(LookupError, match="never came true"):
        broken.wait(0)


class Always(Trigger):
    """True from the first look on."""

    reads: ClassVar[Reads] = "answer"

    def question(self, condition: str) -> str:
        return condition

    def probability(self, seen: Evidence) -> float:
        return 1.0


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent(random_model("llava_onevision")) as agent:
        yield agent


def test_a_watch_on_a_file_calls_back_explains_and_ends_with_it(agent: Agent) -> None:
    heard: list[WatchFired] = []
    called = threading.Event()

    def hear(event: WatchFired) -> None:
        heard.append(event)
        called.set()
        raise RuntimeError("the caller's own mistake")

    with agent.watch(frames(8)) as stream:
        logging.getLogger("streamvlm.engine.courier").setLevel(logging.CRITICAL)
        watch = stream.watch("tell me when it is there", on_fire=hear, trigger=Always(), explain="what is it?")
        never = stream.watch("it is gone", until=0.0)
        stream.wait(LONG)
        assert called.wait(LONG)
        assert watch.condition == "it is there" and list(watch) == heard
        answer = heard[0].answer
        assert answer is not None and answer.text(LONG) == answer.so_far and answer.as_of == 0.0
        with pytest.raises(LookupError, match="never came true"):
            never.wait(LONG)


def test_what_holds_already_when_it_is_first_watched_for_is_told_without_another_frame(agent: Agent) -> None:
    camera = Camera(4)
    with agent.watch(camera) as stream:
        events = stream.listen()
        camera.show(1)
        next(e for e in events if isinstance(e, FramePerceived))
        assert stream.watch("x", trigger=Always()).wait(LONG).pts == 0.0


def test_a_watch_outlives_neither_cancel_nor_close(agent: Agent) -> None:
    camera = Camera(4)
    with agent.watch(camera) as stream:
        watch = stream.watch("x", trigger=Always())
        camera.show(1)
        assert watch.wait(LONG).times == 1
        other = stream.watch("y")
        other.cancel()
        assert list(other) == []
    assert watch.over
    with pytest.raises(StreamClosed):
        stream.watch("z")


@pytest.mark.parametrize(
    ("condition", "options", "message"),
    [
        (" ", {}, "question is empty"),
        ("x" * 900, {}, "background_tokens allows 512"),
        ("x", {"count": 0}, "count=0"),
        ("x", {"colldown": 1}, "unknown option 'colldown'; Rule has sure, on, off, rise, count"),
    ],
)
def test_wrong_watches_say_what_is_wrong(agent: Agent, condition: str, options: Any, message: str) -> None:
    with agent.watch(frames(2)) as stream, pytest.raises(ValueError, match=message):
        stream.watch(condition, **({"trigger": Always()} | options))


def blocks_alike(model: Any, n: int) -> list[Block]:
    (one,) = random_blocks(model, 1)
    return [Block(one.tokens, 1, i / 2, None, 0.0, ()) for i in range(n)]


def test_nothing_moves_nothing_is_asked() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(blocks_alike(model, 20))  # ten seconds
    watch = guard(driver, stream, Scripted({0.0: 0.0}))
    driver.run()
    assert watch.looks <= 5
