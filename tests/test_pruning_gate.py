"""Which frames are let through at all: what is at rest, what the camera and the light did, and patches that overlap."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from families import random_model
from torch import Tensor

from streamvlm.pruning.gate import Gate
from streamvlm.pruning.protocols import FrameGate, Patch, StreamFacts, TokenBlock, TokenPruner
from streamvlm.pruning.spec import parse_prune
from streamvlm.pruning.steady import Steady
from streamvlm.types import VisionTokens

GRID = (4, 4)
SIZE = 64
HIDDEN = 8


def scene(*, thing: tuple[int, int] | None = None, moved: tuple[int, int] = (0, 0), light: float = 1.0) -> Tensor:
    """uint8 [3, 64, 64]: a pattern of large tiles, perhaps a thing on it, all of it displaced and dimmed."""
    generator = torch.Generator().manual_seed(5)
    tiles = torch.randint(60, 200, (3, 10, 10), generator=generator).float()
    wide = tiles.repeat_interleave(8, 1).repeat_interleave(8, 2)
    if thing is not None:
        wide[:, 8 + thing[0] : 16 + thing[0], 8 + thing[1] : 16 + thing[1]] = 250
    down, right = 8 - moved[0], 8 - moved[1]
    return (wide[:, down : down + SIZE, right : right + SIZE] * light).round().to(torch.uint8)


def facts(horizon: float = 1000.0) -> StreamFacts:
    return StreamFacts(random_model("qwen3_vl"), 2.0, horizon)


def let_through(pictures: list[Tensor], **settings: float) -> list[int]:
    """Numbers of the pictures, two a second, that a gate lets through."""
    gate = Gate(**settings).start(facts())  # type: ignore[arg-type]
    assert isinstance(gate, FrameGate)
    found = []
    for i, picture in enumerate(pictures):
        patch = Patch(picture[None], GRID, i * 0.5, 0.5)
        if gate.admit(patch):
            found.append(i)
            gate.note(block(patch))
    return found


def block(patch: Patch) -> TokenBlock:
    embeds = torch.zeros(16, HIDDEN)
    return TokenBlock(VisionTokens(embeds, (), torch.arange(16), GRID, patch.pts, patch.duration), patch)


def test_a_change_is_let_through_when_it_has_come_to_rest() -> None:
    plain, there = scene(), scene(thing=(40, 40))
    way = [scene(thing=(at, at)) for at in (10, 25)]
    pictures = [plain, plain, *way, there, there, there, plain, plain]
    assert let_through(pictures) == [0, 2, 3, 4, 7]
    assert let_through(pictures, settle=2.0) == [0, 5, 8]


def test_what_does_not_come_to_rest_is_let_through_after_a_while() -> None:
    pictures = [scene()] + [scene(thing=(2 * i, 30)) for i in range(20)]
    found = let_through(pictures, settle=1.5)
    assert found[:2] == [0, 4] and all(b - a == 4 for a, b in pairwise(found))


def test_what_was_there_and_gone_is_nothing_new() -> None:
    assert let_through([scene(), scene(thing=(20, 20)), scene(), scene()], settle=2.0) == [0]


def test_a_camera_that_sways_is_no_change_but_what_it_sees_is() -> None:
    sways = [(round(3 * math.sin(i / 2)), round(3 * math.cos(i / 3)) - 3) for i in range(16)]
    held = [scene(moved=at) for at in sways]
    assert len(let_through(held)) > 8
    assert let_through(held, reach=6) == [0]
    something = [scene(moved=at, thing=(30, 40) if i >= 8 else None) for i, at in enumerate(sways)]
    assert let_through(something, reach=6) == [0, 8]
    away = [*held[:4], *(scene(moved=(0, 8)) for _ in range(2))]
    assert let_through(away, reach=4) == [0, 4]


def test_slow_light_is_no_change_until_it_is_much_and_a_switch_is() -> None:
    fading = [scene(light=0.97**i) for i in range(40)]
    plain, fewer = let_through(fading), let_through(fading, light=1.5)
    assert len(plain) > 15 and fewer[0] == 0
    brightness = [0.97**i for i in fewer]
    assert len(fewer) == 1 + int(-39 * math.log(0.97) / math.log(1.5))  # the fade is never further away than that
    assert all(a / b < 1.6 for a, b in pairwise(brightness))
    assert let_through([scene(), scene(light=0.5), scene(light=0.5)], light=1.5) == [0, 1]
    assert let_through([scene(), scene(light=0.8, thing=(20, 20))], light=1.5) == [0, 1]


@pytest.mark.parametrize("moved", [(0, 0), (3, -2), (-4, 4)])
def test_the_displacement_and_the_light_are_found(moved: tuple[int, int]) -> None:
    before, after = scene().float() / 255, scene(moved=moved, light=0.8, thing=(20, 20)).float() / 255
    seen, *found = Steady(reach=5, light=1.5).match(before, after)
    assert tuple(found) == moved
    inner = (seen - after).abs()[:, 6:-6, 6:-6]
    assert float(inner.median()) < 0.01


SHOWN = [0, 0, 1, 1, 1, 2, 2, 0, 0, 0]  # which of three scenes, frame by frame


def as_patches(kind: str) -> list[Patch]:
    """The same frames one at a time, in pairs, or each with the one before it."""
    things = (None, (10, 10), (30, 30))
    pictures = [scene(thing=things[which]) for which in SHOWN]
    if kind == "pairs":
        spans = [(i, i + 2) for i in range(0, len(SHOWN), 2)]
        return [Patch(torch.stack(pictures[a:b]), GRID, a * 0.5, 1.0) for a, b in spans]
    if kind == "overlapping":
        before = [pictures[0], *pictures[:-1]]
        pairs = zip(before, pictures, strict=True)
        return [Patch(torch.stack(pair), GRID, i * 0.5, 0.5, old=1) for i, pair in enumerate(pairs)]
    return [Patch(picture[None], GRID, i * 0.5, 0.5) for i, picture in enumerate(pictures)]


def kept_by(spec: str, kind: str) -> dict[float, list[int]]:
    """Time of each patch of which something is kept -> slots."""
    stages = [method.start(facts()) for method in parse_prune(spec)]
    found = {}
    for patch in as_patches(kind):
        if not all(stage.admit(patch) for stage in stages if isinstance(stage, FrameGate)):
            continue
        left = block(patch)
        for stage in stages:
            left = stage.prune(left) if isinstance(stage, TokenPruner) else left
        for stage in stages:
            if isinstance(stage, FrameGate | TokenPruner):
                stage.note(left)
        if len(left):
            found[patch.pts] = left.tokens.slot.tolist()
    return found


@pytest.mark.parametrize("spec", ["gate", "gate(settle=1)", "dtd", "dtd(against=previous, slack=0)", "gate+dtd"])
def test_a_frame_that_was_shown_before_is_not_compared_again(spec: str) -> None:
    assert kept_by(spec, "overlapping") == kept_by(spec, "single")
    assert 0.0 in kept_by(spec, "single") and len(kept_by(spec, "single")) == 4


def test_both_frames_of_a_pair_are_compared_and_the_newer_is_what_was_kept() -> None:
    assert set(kept_by("dtd", "pairs")) == {0.0, 1.0, 2.0, 3.0}  # the last one changes back in its second frame
    assert set(kept_by("gate", "pairs")) == {0.0, 1.0, 2.0, 3.0}


def test_a_patch_shows_something_new() -> None:
    frames = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    assert Patch(frames, GRID, 0.0, 0.5, old=1).new.shape[0] == 1
    with pytest.raises(ValueError, match="old must be 0 to 1, got 2"):
        Patch(frames, GRID, 0.0, 0.5, old=2)


@pytest.mark.parametrize(
    "wrong", ["gate(settle=-1)", "gate(reach=9)", "gate(light=0.5)", "gate(peak=3)", "dtd(reach=9)"]
)
def test_what_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="got"):
        parse_prune(wrong)
