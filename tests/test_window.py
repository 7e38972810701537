"""What stays in the window, by policy, and where it stands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks, window_of
from families import random_model

from streamvlm.engine.capacity import StreamSize, make_policy, plan_budget
from streamvlm.errors import BudgetError
from streamvlm.memory.policies import FullAttention, SinkWindow, SlidingWindow, WindowPolicy
from streamvlm.memory.slots import CacheShape, SlotCache
from streamvlm.memory.window import Window
from streamvlm.settings import WatchConfig
from streamvlm.types import Kind, Segment


def segment(n: int, kind: Kind, start: float, stop: float) -> Segment:
    steps = torch.arange(n).unsqueeze(1).expand(-1, 3).contiguous()
    return Segment(torch.zeros(n, 4), steps, n, torch.zeros(n, dtype=torch.bool), (), kind, start, stop)


def frame(i: int, n: int = 5) -> Segment:
    return segment(n, Kind.VISION, i * 0.5, i * 0.5 + 0.5)


def window_with(policy: WindowPolicy, max_tokens: int = 200) -> Window:
    def still(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(len(positions), 4), torch.zeros(len(positions), 4)

    return Window(SlotCache(CacheShape(1, 1, 4, 400), still), policy, max_tokens=max_tokens)


def feed(window: Window, *segments: Segment) -> None:
    window.advance(segments)
    window.commit()
    window.check()


def starts(window: Window, kind: Kind) -> list[float]:
    return [e.start for e in window.entries if e.kind is kind]


def test_sink_window_keeps_prefix_first_frame_and_the_last_seconds() -> None:
    window = window_with(SinkWindow(seconds=2.0))
    feed(window, segment(3, Kind.SINK, 0, 0), frame(0))
    for i in range(1, 20):
        feed(window, frame(i))
    assert starts(window, Kind.SINK) == [0, 0.0]
    assert starts(window, Kind.VISION) == [8.0, 8.5, 9.0, 9.5]
    assert window.spans == [(0.0, 0.5), (8.0, 10.0)]
    bases = [(e.base, e.extent) for e in window.entries]
    assert all(a + n == b for (a, n), (b, _) in pairwise(bases)), "positions are contiguous"


def test_text_leaves_by_its_own_budget_oldest_first() -> None:
    window = window_with(SinkWindow(seconds=2.0, text_tokens=10))
    feed(window, segment(3, Kind.SINK, 0, 0), frame(0))
    for i in range(1, 12):
        feed(window, segment(4, Kind.TEXT, i * 0.5, i * 0.5), frame(i))
    texts = [e for e in window.entries if e.kind is Kind.TEXT]
    assert sum(len(t) for t in texts) <= 10 + 4
    assert texts[-1].start == 5.5


def test_a_larger_frame_shortens_the_window_instead_of_failing() -> None:
    window = window_with(SinkWindow(seconds=100.0), max_tokens=40)
    feed(window, segment(3, Kind.SINK, 0, 0), frame(0))
    for i in range(1, 10):
        feed(window, frame(i))
    feed(window, frame(10, n=20))
    assert len(window) <= 40
    assert starts(window, Kind.VISION)[-1] == 5.0


def test_a_frame_larger_than_the_window_says_so() -> None:
    window = window_with(SinkWindow(seconds=100.0), max_tokens=40)
    feed(window, frame(0))
    with pytest.raises(BudgetError, match="may keep 40"):
        window.advance([frame(1, n=60)])


def test_full_attention_keeps_all_and_ends_with_an_error() -> None:
    window = window_with(FullAttention(), max_tokens=30)
    for i in range(6):
        feed(window, frame(i))
    assert len(window.entries) == 6
    with pytest.raises(BudgetError, match="FullAttention may keep 30"):
        window.advance([frame(6)])


def test_plain_sliding_window_loses_even_the_prompt() -> None:
    window = window_with(SlidingWindow(seconds=2.0))
    feed(window, segment(3, Kind.SINK, 0, 0), frame(0))
    for i in range(1, 8):
        feed(window, frame(i))
    assert starts(window, Kind.SINK) == []
    assert starts(window, Kind.VISION) == [2.0, 2.5, 3.0, 3.5]


@pytest.mark.parametrize(
    ("policy", "frames"), [("sliding_recompute", [4.0, 4.5, 5.0, 5.5]), ("last_frames", [4.5, 5.0, 5.5])]
)
def test_recomputing_policies_start_afresh_at_every_frame(policy: str, frames: list[float]) -> None:
    """Their cache equals that of a stream which saw nothing else."""
    model = random_model("llava_onevision")
    options: dict[str, Any] = {"policy": policy, "window_seconds": 2.0, "last_frames": 3}
    blocks = random_blocks(model, 12)
    long, short = Driver(model), Driver(model)
    seen = long.watch(blocks, **options)
    long.run()
    assert starts(window_of(seen), Kind.VISION) == frames
    fresh = short.watch(blocks[-len(frames) :], **options)
    short.run()
    for ours, theirs in (
        (window_of(seen).cache.keys, window_of(fresh).cache.keys),
        (window_of(seen).cache.values, window_of(fresh).cache.values),
    ):
        slots = [torch.cat([e.slots for e in window_of(s).entries]) for s in (seen, fresh)]
        torch.testing.assert_close(ours[:, :, slots[0]], theirs[:, :, slots[1]], atol=1e-5, rtol=0)
    assert window_of(seen).count.seen == (
        len(model.prefix_layout()) + sum(len(model.frame_segment(b.tokens)) for b in blocks)
    )


@pytest.mark.parametrize("policy", ["sink_window", "full", "last_frames", "sliding", "sliding_recompute"])
def test_the_budget_covers_a_whole_window_of_every_policy(policy: str) -> None:
    config = WatchConfig(policy=policy, window_seconds=10.0, fps=2.0)  # type: ignore[arg-type]
    budget = plan_budget(config, StreamSize(prefix=10, block=30, frames_per_block=2))
    window = window_with(make_policy(config, 2), max_tokens=budget.window)
    feed(window, segment(10, Kind.SINK, 0, 0), segment(30, Kind.VISION, 0, 1))
    for i in range(1, 10):
        feed(window, segment(30, Kind.VISION, i, i + 1))
    kept = len([e for e in window.entries if e.stop > e.start])
    assert kept == {"last_frames": 2}.get(policy, 10)
    assert budget.capacity > budget.window
