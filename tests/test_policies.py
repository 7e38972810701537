"""The engine's promises under load, on virtual time: all is real but the forward pass."""

from __future__ import annotations

from typing import Any

import pytest
from families import random_model

from streamvlm.engine.baselines import Schedule
from streamvlm.engine.virtual import Hardware, Life, Simulation
from streamvlm.errors import BusyError

# A device on which a step takes 20 ms, whether of a frame of 40 tokens or of eight answers: reading dominates.
DEVICE = Hardware("test", weights=20e-3, per_slot=1e-6, per_row=4e-4, per_pair=1e-8)
SLOW = Hardware("slow", weights=4e-3, per_slot=1e-6, per_row=4e-3, per_pair=1e-7)


def live(answers: int, schedule: Schedule = "packed", *, seconds: float = 6.0, streams: int = 1) -> list[Life]:
    run = Simulation(random_model("llava_onevision"), DEVICE, schedule=schedule)
    lives = [run.add(fps=4.0, tokens=40, answers=answers, length=48) for _ in range(streams)]
    run.until(seconds)
    for life in lives:
        assert life.stream.window is not None
        life.stream.window.check()
    return lives


@pytest.mark.parametrize("answers", [0, 1, 8])
def test_no_frame_is_late_however_many_answers_are_written(answers: int) -> None:
    (life,) = live(answers)
    assert len(life.lags) >= 4 * 6 - 1
    assert max(life.lags) <= 0.25
    assert life.dropped == 0 and life.eyes.backlog <= 1
    assert (life.tokens > 0) == (answers > 0)


def test_answering_first_makes_frames_late_and_lost() -> None:
    (ours,), (theirs,) = live(8), live(8, "blocking")
    assert max(theirs.lags) > 3 * max(ours.lags)
    assert theirs.dropped > 0
    assert ours.dropped == 0


@pytest.mark.parametrize("schedule", ["wait_k", "alternating"])
def test_the_other_baselines_write_less(schedule: Schedule) -> None:
    (ours,), (theirs,) = live(8), live(8, schedule)
    assert 0 < theirs.tokens < ours.tokens
    assert ours.dropped == 0


def test_several_streams_all_keep_their_deadlines() -> None:
    lives = live(4, streams=3, seconds=4.0)
    assert all(max(life.lags) <= 0.25 and life.dropped == 0 for life in lives)
    written = [life.tokens for life in lives]
    assert max(written) <= 1.3 * min(written), "none is written for at the cost of another"


def overloaded(**rates: float) -> dict[str, Life]:
    """Streams that together need more than there is."""
    run = Simulation(random_model("llava_onevision"), SLOW)
    lives = {name: run.add(fps=fps, tokens=40, answers=1, length=24) for name, fps in rates.items()}
    run.until(8.0)
    return lives


def test_under_overload_the_newest_frames_are_seen_and_the_rest_is_counted() -> None:
    life = overloaded(only=16.0)["only"]
    assert life.dropped > 0
    assert abs(len(life.lags) + life.dropped + len(life.eyes.blocks) - 16 * 8) <= 2
    assert max(life.lags) < 4 / 16 + 3 * 0.25, "what is seen is recent"


def test_under_overload_a_calm_stream_does_not_pay_for_a_busy_one() -> None:
    lives = overloaded(busy=16.0, calm=1.0)
    assert lives["calm"].dropped == 0 and lives["busy"].dropped > 0
    assert len(lives["calm"].lags) >= 7


def test_questions_are_refused_when_watching_alone_takes_everything() -> None:
    life = overloaded(only=16.0)["only"]
    refused = [a for a in life.asked if a.status == "failed"]
    assert refused and all(isinstance(a.error, BusyError) for a in refused)
    with pytest.raises(BusyError, match="of the time there is"):
        refused[0].text()


def test_a_stream_too_many_is_refused_and_one_that_fits_is_not() -> None:
    run = Simulation(random_model("llava_onevision"), DEVICE)
    run.engine.check_room(0.001)  # of the first nothing is known
    run.add(fps=4.0, tokens=40)
    run.until(6.0)
    run.engine.check_room(0.25)
    with pytest.raises(BusyError, match="one more would take"):
        run.engine.check_room(0.02)


def test_simulated_runs_repeat_exactly() -> None:
    def figures() -> Any:
        (life,) = live(4, seconds=2.0)
        return life.lags, life.tokens

    assert figures() == figures()
