"""More of what published pruning code gets wrong: state that grows, rows that are equal, two videos on one model."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from families import random_model
from pruned import FULL, HIDDEN, PRUNERS, Line, block_of, random_blocks
from torch import Tensor

from streamvlm import Agent, Frame, FramePerceived, StreamEnded, StreamEvent
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.protocols import Patch


def held(thing: Any, seen: set[int] | None = None) -> int:
    """Numbers that an object and what it refers to remember, models left out."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, VisionLanguageModel | type):
        return 0
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        return thing.numel()
    if isinstance(thing, dict):
        return sum(held(value, seen) + 1 for value in thing.values())
    if isinstance(thing, str) or not (hasattr(thing, "__dict__") or hasattr(thing, "__iter__") or is_dataclass(thing)):
        return 1
    if hasattr(thing, "__iter__"):
        return sum(held(value, seen) for value in thing)
    names = [f.name for f in fields(thing)] if is_dataclass(thing) else list(vars(thing))
    return sum(held(getattr(thing, name), seen) for name in names)


@pytest.mark.parametrize("spec", PRUNERS)
def test_an_hour_is_remembered_in_as_much_as_a_minute(spec: str) -> None:
    line = Line(spec)
    sizes = []
    for i, block in enumerate(random_blocks(10) * 40):
        line(block_of(block.tokens.embeds, i * 0.5, block.patch.frames[0]))
        if i in (199, 399):
            sizes.append(held(line))
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize("spec", PRUNERS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_rows_that_are_equal_make_no_nan(spec: str, value: float) -> None:
    line = Line(spec)
    for i in range(12):
        kept = line(block_of(torch.full((FULL, HIDDEN), value), i * 0.5)).tokens
        assert bool(torch.isfinite(kept.embeds).all()) and torch.equal(kept.embeds, torch.full_like(kept.embeds, value))


def noise(seed: int) -> list[Frame]:
    """A patch of the picture changes with every frame, another one never."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    found = []
    for i in range(10):
        picture = picture.clone()
        picture[:, :20, :20] = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8, generator=generator)
        found.append(Frame(picture, i * 0.5, 0.5))
    return found


def watched(agent: Agent, videos: list[list[Frame]], prune: str) -> list[list[tuple[int, ...]]]:
    """What was kept of every patch of each video, all of them watched at once."""
    begin = threading.Event()

    def shown(frames: list[Frame]) -> Iterator[Frame]:
        begin.wait()
        yield from frames

    with ExitStack() as stack:
        streams = [stack.enter_context(agent.watch(shown(frames), prune=prune)) for frames in videos]
        channels = [stream.events() for stream in streams]
        begin.set()
        return [_kept(channel) for channel in channels]


def _kept(events: Iterable[StreamEvent]) -> list[tuple[int, ...]]:
    found = []
    for event in events:
        if isinstance(event, StreamEnded):
            break
        if isinstance(event, FramePerceived):
            found.append(event.kept)
    return found


@pytest.mark.parametrize("spec", ["dtd+cap(5)", "cacher+dtd(by=features)", "stc", "gate(settle=1)"])
def test_videos_on_one_agent_see_nothing_of_each_other(spec: str) -> None:
    videos = [noise(1), noise(2)]
    with Agent(random_model("qwen3_vl")) as agent:
        in_turn = [watched(agent, [video], spec)[0] for video in videos]
        at_once = watched(agent, videos, spec)
    with Agent(random_model("qwen3_vl")) as fresh:
        second = watched(fresh, [videos[1]], spec)[0]
    assert at_once == in_turn and in_turn[1] == second and any(second)


def test_a_region_of_interest_keeps_small_changes_and_the_rest_only_large_ones() -> None:
    plain = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    small, large = plain.clone(), plain.clone()
    for at in (4, 36):  # a small change in the left half and the same in the right one
        small[:, 20:28, at : at + 8] = 120
        large[:, 20:28, at : at + 8] = 250
    embeds = torch.randn(FULL, HIDDEN)
    for picture, kept in ((small, [4]), (large, [4, 6])):
        line = Line("dtd+roi(right=0.5)")
        assert len(line(block_of(embeds, 0.0, plain))) == FULL  # what was never seen is due everywhere
        assert line(block_of(embeds, 0.5, picture)).tokens.slot.tolist() == kept


def test_a_region_without_a_score_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="after a method that scores"):
        Line("roi(right=0.5)")(random_blocks(1)[0])


def test_what_was_between_two_frames_of_a_patch_is_seen() -> None:
    """Published: the first frame of the patch before against the last of this one, blind to what was between them."""
    plain = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    flash = plain.clone()
    flash[:, :16, :16] = 250
    line = Line("dtd")
    for number, pair in enumerate(((plain, plain), (flash, plain))):
        block = block_of(torch.randn(FULL, HIDDEN), float(number))
        patch = Patch(torch.stack(pair), block.patch.grid, float(number), 1.0)
        kept = line(type(block)(block.tokens, patch))
    assert kept.tokens.slot.tolist() == [0]
