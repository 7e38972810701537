"""Keeping up: what is given up when, and that nothing of it goes unsaid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import random_model
from test_policies import SLOW

from streamvlm import FramesDropped, LoadChanged, StreamEvent
from streamvlm.engine.easing import Eased, eased
from streamvlm.engine.ladder import CLIMB, DESCEND, Ladder, Rung
from streamvlm.engine.perceiver import Block
from streamvlm.engine.virtual import Hardware, Simulation
from streamvlm.types import Frame, Kind


def rungs(ladder: Ladder, *stretches: tuple[float, float]) -> list[Rung]:
    """The rung after each stretch of (seconds, lag), frames coming ten times a second."""
    found, now = [], 0.0
    for seconds, lag in stretches:
        for _ in range(round(10 * seconds)):
            now += 0.1
            ladder.see(now, lag)
        found.append(ladder.rung)
    return found


def test_it_climbs_while_frames_are_late_and_comes_down_more_slowly() -> None:
    up = rungs(Ladder(0.5), (3.5 * CLIMB, 0.45), (DESCEND - 0.5, 0.1), (1.0, 0.1), (2 * DESCEND, 0.1))
    assert up == [Rung.NO_DUPLICATES, Rung.NO_DUPLICATES, Rung.RARE_WATCHES, Rung.CALM]


def test_it_neither_flutters_nor_minds_a_moment() -> None:
    ladder = Ladder(0.5)
    assert rungs(ladder, *[(0.8, 0.6), (0.3, 0.3)] * 10) == [Rung.CALM] * 20
    rungs(ladder, (1.5 * CLIMB, 0.6))
    assert rungs(ladder, (60.0, 0.3)) == [Rung.NO_NOTES], "between the marks it stays where it is"


def test_a_lost_frame_counts_as_late() -> None:
    ladder = Ladder(0.5)
    for tenth in range(15):
        ladder.see(tenth / 10, 0.0, lost=1)
    assert ladder.rung == Rung.NO_NOTES and ladder.climbed[Rung.NO_NOTES] == 1


def test_it_ends_at_the_top() -> None:
    ladder = Ladder(0.5)
    rungs(ladder, (60.0, 9.0))
    assert ladder.rung == max(Rung) and sum(ladder.climbed.values()) == len(Rung) - 1


class Film:
    """Frames of a size, each of its own grey."""

    uri = "a film"

    def __init__(self, greys: list[int], side: int = 64) -> None:
        self.closed = False
        self._frames = [
            Frame(torch.full((3, side, side), grey, dtype=torch.uint8), i / 4, 0.25) for i, grey in enumerate(greys)
        ]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def close(self) -> None:
        self.closed = True


def shown(film: Film, rung: Rung) -> tuple[list[float], list[float], Eased]:
    """Times of the frames that are shown, and of those that are left out."""
    left_out: list[float] = []
    easing = Eased(film, lambda: rung, left_out.append)
    return [frame.pts for frame in easing], left_out, easing


def test_frames_are_left_out_by_rung_and_every_one_is_told() -> None:
    greys = [10, 10, 11, 60, 60, 200, 90, 10]
    every = [i / 4 for i in range(8)]
    assert shown(Film(greys), Rung.RARE_WATCHES)[:2] == (every, [])
    seen, gone, easing = shown(Film(greys), Rung.NO_DUPLICATES)
    assert seen == [0.0, 0.75, 1.25, 1.5, 1.75] and sorted(seen + gone) == every
    assert easing.left_out == {"duplicate": 3}
    seen, gone, easing = shown(Film([30 * i for i in range(8)]), Rung.LOW_FPS)
    assert len(seen) == 4 and sorted(seen + gone) == every and easing.left_out == {"fps": 4}


def test_large_pictures_are_halved_and_small_ones_are_not() -> None:
    def sizes(side: int) -> set[tuple[int, int]]:
        return {frame.size for frame in Eased(Film([1, 90], side), lambda: Rung.LOW_RESOLUTION, lambda pts: None)}

    assert sizes(448) == {(224, 224)} and sizes(64) == {(64, 64)}


def test_an_eased_source_closes_as_its_own() -> None:
    film = Film([1])
    Eased(film, lambda: Rung.CALM, lambda pts: None).close()
    assert film.closed

    def made() -> Iterator[Frame]:
        try:
            yield from Film([1, 2, 3])
        finally:
            ended.append(True)

    ended: list[bool] = []
    source = made()
    frames = eased(source, Eased(source, lambda: Rung.CALM, lambda pts: None))
    next(iter(frames))
    frames.close()  # type: ignore[attr-defined]
    assert ended == [True]


def test_under_lasting_overload_everything_is_given_up_and_told_and_what_is_seen_is_new() -> None:
    run = Simulation(random_model("llava_onevision"), SLOW)
    life = run.add(fps=16.0, tokens=40, answers=1, length=24)
    told: list[Any] = []

    def hear(event: StreamEvent) -> None:
        told.append(event)
        life.hear(event)

    life.stream.emit = hear
    run.until(12.0)
    assert [e.rung for e in told if isinstance(e, LoadChanged)] == list(range(1, len(Rung)))
    assert max(life.lags[-10:]) < 3 * 0.25, "only the newest frame is still worth its time"
    assert life.stream.refusing is not None
    assert life.stream.stats.climbed == (0, 1, 1, 1, 1, 1, 1, 1) and life.stream.stats.rung == 7


def test_when_the_load_goes_so_do_the_measures() -> None:
    run = Simulation(random_model("llava_onevision"), Hardware("device", 4e-3, 1e-6, 4e-3, 1e-7))
    life = run.add(fps=8.0, tokens=40)
    run.until(4.0)
    assert life.stream.ladder is not None
    highest = life.stream.ladder.rung
    run._hardware = Hardware("faster", 1e-3, 1e-8, 1e-5, 1e-9)
    run.until(40.0)
    assert highest > Rung.CALM and life.stream.ladder.rung == Rung.CALM


@pytest.mark.parametrize(("lost", "written"), [(0.4, False), (1.5, True)])
def test_what_is_missing_is_written_into_the_stream(lost: float, written: bool) -> None:
    model = random_model("qwen3_vl")
    blocks = random_blocks(model, 6)
    gone = blocks[3]
    blocks[3] = Block(gone.tokens, gone.frames, gone.last_pts, None, lost, ())
    driver = Driver(model)
    stream = driver.watch(blocks)
    driver.run()
    texts = [e for e in window_of(stream).entries if e.kind is Kind.TEXT]
    assert [len(e) for e in texts] == ([len(model.text_layout("<gap 1.5 s>"))] if written else [])
    assert stream.frames == 6 * model.pixels.temporal


def test_frames_skipped_for_newer_ones_are_counted_and_told() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 9))
    stream.ladder = Ladder(0.5, Rung.NEWEST_ONLY)
    driver.run()
    assert (stream.frames, stream.frames_dropped) == (1, 8) and stream.now == 4.0
    assert sum(e.frames for e in driver.events if isinstance(e, FramesDropped)) == 8
