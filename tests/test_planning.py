"""What goes into a step: decided from bids and costs alone, so every policy is tested without a model or a wait."""

from __future__ import annotations

import math
import random

import pytest

from streamvlm.engine.costs import CostModel
from streamvlm.engine.planning import LEAST_ROWS, UNMEASURED_ROWS, Account, Bid, Grant, Planner, Sort

MS = 1e-3


def priced(fixed: float = 0.0, per_row: float = MS) -> CostModel:
    """Costs that are known already."""
    costs = CostModel((fixed, per_row, 0.0))
    costs.steps = 1000
    return costs


def bid(
    name: str, sort: Sort, rows: int = 1, *, account: Account | None = None, deadline: float = math.inf
) -> Bid[str]:
    return Bid(name, sort, rows, 0, account or Account(), deadline, whole=sort is Sort.FRAME)


def names(grants: list[Grant[str]]) -> list[str]:
    return [g.bid.what for g in grants]


def test_costs_are_learned_from_steps() -> None:
    costs, rng = CostModel(), random.Random(3)
    for _ in range(200):
        rows, seen = rng.randint(1, 300), rng.randint(100, 4000)
        costs.learn(rows, rows * seen, 4e-3 + 2e-5 * rows + 3e-9 * rows * seen)
    assert costs.step(128, 128 * 2000) == pytest.approx(4e-3 + 2e-5 * 128 + 3e-9 * 128 * 2000, rel=0.05)
    assert costs.fixed == pytest.approx(4e-3, rel=0.1)


def test_costs_follow_a_machine_that_gets_slower_and_shrug_off_one_hiccup() -> None:
    costs, rng = CostModel(), random.Random(3)
    for _ in range(100):
        rows = rng.randint(1, 100)
        costs.learn(rows, 0, 1e-3 + 1e-4 * rows)
    before = costs.step(50, 0)
    costs.learn(50, 0, 5.0)
    assert costs.step(50, 0) < 1.5 * before
    for _ in range(300):
        rows = rng.randint(1, 100)
        costs.learn(rows, 0, 2e-3 + 2e-4 * rows)
    assert costs.step(50, 0) == pytest.approx(2 * before, rel=0.1)


def test_a_first_step_that_compiles_is_not_taken_for_the_rule() -> None:
    costs = CostModel()
    costs.learn(100, 0, 30.0)
    for rows in range(10, 30):
        costs.learn(rows, 0, 1e-3 + 1e-4 * rows)
    assert costs.step(20, 0) == pytest.approx(3e-3, rel=0.05)


def test_costs_are_never_negative() -> None:
    costs = CostModel()
    for rows in range(1, 60):
        costs.learn(rows, rows * rows, 1.0 / rows)  # the more the cheaper: nonsense, and it happens by noise
        assert costs.fixed >= 0 and costs.of(100, 0) >= 0 and costs.of(0, 10_000) >= 0


def test_frames_go_by_earliest_deadline() -> None:
    frames = [bid("late", Sort.FRAME, 30, deadline=9.0), bid("soon", Sort.FRAME, 30, deadline=5.0)]
    planner: Planner[str] = Planner(priced())
    assert names(planner.plan(frames, 40 * MS, now=0.0)) == ["soon"]


def test_under_overload_no_stream_takes_anothers_frames() -> None:
    """All deadlines are missed: each stream gets the same time, though one shows four times as many frames."""
    planner: Planner[str] = Planner(priced())
    accounts = {"busy": Account(), "calm": Account()}
    for step in range(100):
        now = float(step)
        frames = [
            bid("busy", Sort.FRAME, 40, account=accounts["busy"], deadline=now - 4.0),
            bid("calm", Sort.FRAME, 10, account=accounts["calm"], deadline=now - 1.0),
        ]
        planner.plan(frames, 40 * MS, now)
    assert accounts["busy"].served == pytest.approx(accounts["calm"].served, rel=0.1)


@pytest.mark.parametrize(("frames", "tokens"), [(50, 4), (4, 500), (50, 500)])
def test_neither_side_starves_the_other(frames: int, tokens: int) -> None:
    """With more of both than fits, frames get half of the step and tokens a quarter, whatever else is bid."""
    planner: Planner[str] = Planner(priced())
    bids = [bid("frame", Sort.FRAME, 10, deadline=float(i)) for i in range(frames)]
    bids += [bid("token", Sort.TOKEN) for _ in range(tokens)]
    granted = planner.plan(bids, 100 * MS, now=0.0)
    rows = {name: sum(g.rows for g in granted if g.bid.what == name) for name in ("frame", "token")}
    assert rows["frame"] >= min(50, 10 * frames)
    assert rows["token"] >= min(25, tokens)
    assert sum(rows.values()) <= 100


def test_a_step_never_exceeds_its_budget_except_for_one_of_each_sort() -> None:
    planner, rng = Planner[str](priced(fixed=5 * MS)), random.Random(1)
    for _ in range(50):
        bids = [bid("x", rng.choice(list(Sort)), rng.randint(1, 60)) for _ in range(20)]
        granted = planner.plan(bids, 80 * MS, now=0.0)
        firsts = {g.bid.sort: g.rows for g in reversed(granted)}
        rows = sum(g.rows for g in granted)
        assert rows - sum(firsts.values()) <= 75


def test_something_is_always_granted() -> None:
    planner: Planner[str] = Planner(priced(fixed=1.0))
    for sort in Sort:
        granted = planner.plan([bid("only", sort, 400)], 10 * MS, now=0.0)
        assert names(granted) == ["only"], "a step that is too dear is still better than none"


def test_a_step_that_is_dear_anyway_is_not_run_for_a_single_token() -> None:
    planner: Planner[str] = Planner(priced(fixed=40 * MS))
    granted = planner.plan([bid("token", Sort.TOKEN) for _ in range(16)], 10 * MS, now=0.0)
    assert len(granted) == 16


def test_notes_live_on_what_is_left() -> None:
    planner: Planner[str] = Planner(priced())
    bids = [bid("note", Sort.NOTE), *(bid(f"token {i}", Sort.TOKEN) for i in range(10))]
    assert "note" not in names(planner.plan(bids, 10.5 * MS, now=0.0))
    assert "note" in names(planner.plan(bids, 11.5 * MS, now=0.0))


def test_a_long_prompt_goes_in_pieces_and_a_frame_whole() -> None:
    planner: Planner[str] = Planner(priced())
    granted = planner.plan([bid("prompt", Sort.PROMPT, 300), bid("token", Sort.TOKEN)], 60.5 * MS, now=0.0)
    assert {g.bid.what: g.rows for g in granted} == {"token": 1, "prompt": 59}
    crowded = [bid("prompt", Sort.PROMPT, 300), *(bid("token", Sort.TOKEN) for _ in range(50))]
    granted = planner.plan(crowded, 20 * MS, now=0.0)
    assert max(g.rows for g in granted) == LEAST_ROWS, "it goes on, however crowded the step"
    assert planner.plan([bid("frame", Sort.FRAME, 300)], 60 * MS, now=0.0)[0].rows == 300


def test_readers_share_by_cost_and_so_do_streams() -> None:
    """One stream's nine answers do not crowd out the single answer of another."""
    planner: Planner[str] = Planner(priced())
    many, one = Account(), Account()
    readers = [Account(many) for _ in range(9)] + [Account(one)]
    for _ in range(200):
        planner.plan([bid("token", Sort.TOKEN, account=a) for a in readers], 4.5 * MS, now=0.0)
    assert one.served == pytest.approx(200 * MS, rel=0.01), "its one token goes into every step"
    shares = [a.served for a in readers[:9]]
    assert max(shares) - min(shares) <= 2 * MS


def test_who_comes_late_owes_nothing_and_is_owed_nothing() -> None:
    old, new = [Account(None, 5.0), Account(None, 7.0)], Account()
    new.enter(old)
    assert new.served == 5.0
    first = Account()
    first.enter([])
    assert first.served == 0.0


def test_nothing_is_known_about_costs_at_first() -> None:
    planner: Planner[str] = Planner(CostModel())
    bids = [bid("frame", Sort.FRAME, 200) for _ in range(20)]
    assert 0 < sum(g.rows for g in planner.plan(bids, 10 * MS, now=0.0)) <= UNMEASURED_ROWS
    assert len(planner.plan(bids, math.inf, now=0.0)) == 20, "files wait for nobody"
