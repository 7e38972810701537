"""Frame rate and picture size by budget: which gives way when."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from streamvlm.engine.ration import DWELL, MARGIN, Limits, Ration, Size

SIZES = tuple(Size(32 * k, 32 * k, k * k) for k in (8, 6, 4, 2, 1))  # 64, 36, 16, 4 and 1 tokens
FPS = 4.0


def ration(budget: float, *, least_fps: float = 0.5, advance: int = 1) -> Ration:
    return Ration(Limits(FPS, least_fps, advance, budget))


def run(made: Ration, seconds: float, share: float, begun: float = 0.0, kept: float = 1.0) -> list[tuple[float, int]]:
    """(frames a second, tokens of a patch) at every choice, while so much of the picture moves."""
    found = []
    for number in range(round(FPS * seconds)):
        now = begun + number / FPS
        made.moved(share, 1 / FPS)
        if made.choose(now, SIZES):
            assert made.choice is not None
            found.append((made.choice.fps, made.choice.size.tokens))
        assert made.choice is not None
        made.kept(round(kept * 1000), 1000, 1 / FPS)
    return found


# the rule


def test_with_room_for_all_nothing_gives_way() -> None:
    assert run(ration(4 * 64), 60, 0.5) == run(ration(4 * 64), 60, 0.0) == [(4.0, 64)]


def test_what_moves_keeps_its_frame_rate_and_what_rests_its_size() -> None:
    assert run(ration(64), 60, 0.5) == [(4.0, 16)]
    assert run(ration(64), 60, 0.0) == [(4.0, 16), (1.0, 64)], "until it is known, it is taken to move"


@pytest.mark.parametrize(("share", "gives"), [(0.5, (2.0, 1)), (0.0, (0.5, 4))])
def test_what_one_cannot_give_the_other_does(share: float, gives: tuple[float, float]) -> None:
    assert run(ration(2.1), 60, share)[-1] == gives


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("budget", [1.0, 3.0, 10.0, 50.0, 100.0, 200.0])
def test_a_budget_that_can_be_kept_is_kept(budget: float, share: float) -> None:
    made = ration(budget)
    for fps, tokens in run(made, 60, share):
        assert fps * tokens <= budget
    assert made.choice is not None and made.choice.enough


def test_one_that_cannot_be_kept_is_overdrawn_by_the_least_and_says_so() -> None:
    made = ration(0.1)
    assert run(made, 60, 0.0) == [(0.5, 1)]
    assert made.choice is not None and not made.choice.enough and made.choice.rate == 0.5


def test_the_frame_rate_stays_above_its_least() -> None:
    assert run(ration(8, least_fps=2.0), 60, 0.0)[-1] == (2.0, 4)
    assert run(ration(8, least_fps=99.0), 60, 0.0)[-1] == (4.0, 1), "more than was asked for is never shown"


def test_it_does_not_flutter() -> None:
    made = ration(64)
    changes = []
    for second in range(120):  # movement about the mark, by turns
        changes += [float(second)] * len(run(made, 1, 0.03 if second % 2 else 0.008, float(second)))
    assert len(changes) <= 2
    moving, still = run(made, 30, 0.5, 120), run(made, 30, 0.0, 150)
    assert len(moving) <= 1 and len(still) == 1


def test_between_two_changes_lies_some_time() -> None:
    made, at = ration(64), []
    for number in range(1200):
        share = 0.5 if number // 40 % 2 else 0.0  # ten seconds each
        made.moved(share, 1 / FPS)
        if made.choose(number / FPS, SIZES):
            at.append(number / FPS)
    assert len(at) > 10 and min(b - a for a, b in pairwise(at)) >= DWELL


def test_a_cut_is_no_movement() -> None:
    made = ration(64)
    run(made, 20, 0.0)
    made.moved(1.0, 1 / FPS)
    assert not made.moving and run(made, 20, 0.0, 20) == []


def test_what_pruning_leaves_is_what_counts() -> None:
    made = ration(64)
    assert run(made, 60, 0.5, kept=0.2)[-1] == (4.0, 64)
    assert run(made, 60, 0.5, 60.0)[-1] == (4.0, 16), "and when it leaves more, the budget is kept again"


def test_a_little_more_or_less_changes_nothing() -> None:
    made = ration(64)
    run(made, 20, 0.5)  # 4 fps of 16 tokens
    assert made.choice is not None and made.choice.rate == 64
    made.terms = replace(made.terms, budget=64 / (1 + 0.9 * MARGIN))
    assert run(made, 20, 0.5, 20) == []
    made.terms = replace(made.terms, budget=64 / (1 + 1.1 * MARGIN))
    assert run(made, 20, 0.5, 40) == [(4.0, 4)]


def test_the_load_that_is_measured_is_a_budget_too() -> None:
    made = Ration(Limits(FPS, 0.5, 1, utilisation=0.5))
    assert run(made, 10, 0.5) == [(4.0, 64)], "nothing is known of the load yet"
    made.load = 0.9
    assert run(made, 1, 0.5, 10) == [(4.0, 16)], "36 tokens are more than five ninths of 64"
    made.load = 0.1
    assert run(made, 10, 0.5, 20)[-1] == (4.0, 64)
