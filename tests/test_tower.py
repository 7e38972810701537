"""The vision tower that streams share: what waits at once is one call, and nobody sees or loses anything by it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import pytest
import torch
from families import random_model
from held import ALL, BAD, LONG, Held, assert_same, model_of, random_pixels, until

from streamvlm import ModelError, StreamClosed
from streamvlm.engine.costs import CostModel
from streamvlm.engine.tower import Encoded, Tower
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.protocols import Patch
from streamvlm.types import VisionTokens

SIZES = [(32, 48), (48, 32), (32, 48), (64, 64), (32, 32)]


def patch_of(model: VisionLanguageModel, seed: int, size: tuple[int, int] = (32, 48), pts: float = 0.0) -> Patch:
    return Patch(random_pixels(seed, model.pixels.temporal, size), model.token_grid(*size), pts, 0.5)


class Looking:
    """A stream's encode thread that wants some patches."""

    def __init__(self, tower: Tower, patches: Sequence[Patch], *, paced: bool = False, due: float = math.inf) -> None:
        self.viewer = tower.enter(paced=paced)
        self.found: list[Encoded | Exception] = []
        self._thread = threading.Thread(target=self._look, args=(tower, patches, due), daemon=True)
        self._thread.start()

    def _look(self, tower: Tower, patches: Sequence[Patch], due: float) -> None:
        self.found = tower.encode(self.viewer, patches, due)

    def result(self) -> list[Encoded | Exception]:
        self._thread.join(LONG)
        return self.found

    def tokens(self) -> list[VisionTokens]:
        return [one.tokens for one in self.result() if isinstance(one, Encoded)]


# what one call gives


@pytest.mark.parametrize("family", ALL)
def test_patches_of_any_sizes_encoded_in_one_call_equal_those_encoded_alone(family: str) -> None:
    model = model_of(family)
    patches = [patch_of(model, i, size, 0.5 * i) for i, size in enumerate(SIZES)]
    spans = [(p.pts, p.duration) for p in patches]
    together = model.encode_patches([p.frames for p in patches], spans)
    assert len(together) == len(SIZES)
    for patch, found, span in zip(patches, together, spans, strict=True):
        assert found.grid == patch.grid and found.pts == patch.pts
        assert_same(found, model.encode(patch.frames, [span])[0])


@pytest.mark.parametrize("family", ALL)
def test_no_patch_sees_another_of_its_call(family: str) -> None:
    model = model_of(family)
    patches, spans = [patch_of(model, i, size).frames for i, size in enumerate(SIZES)], [(0.0, 0.5)] * len(SIZES)
    before = model.encode_patches(patches, spans)
    patches[1] = patch_of(model, 99, SIZES[1]).frames
    after = model.encode_patches(patches, spans)
    assert not torch.allclose(before[1].embeds, after[1].embeds, atol=1e-3)
    for i in (0, 2, 3, 4):
        assert torch.equal(before[i].embeds, after[i].embeds)


# who shares a call


@pytest.mark.parametrize("family", ALL)
def test_what_waits_at_once_is_one_call(family: str) -> None:
    held = Held(model_of(family))
    tower, model = Tower(held.model), model_of(family)
    wanted = [[patch_of(model, 10 * i + j, SIZES[i], 0.5 * j) for j in range(i + 1)] for i in range(3)]
    first = Looking(tower, [patch_of(model, 77)])
    assert held.entered.wait(LONG)
    lookers = [Looking(tower, patches) for patches in wanted]
    until(lambda: tower.waiting == 6)
    held.release.set()
    for looker, patches in zip(lookers, wanted, strict=True):
        tokens = looker.tokens()
        for found, patch in zip(tokens, patches, strict=True):
            assert_same(found, model.encode(patch.frames, [(patch.pts, patch.duration)])[0])
        assert all(isinstance(one, Encoded) and one.batch == 6 for one in looker.result())
    assert len(first.tokens()) == 1 and held.batches == [1, 6]
    assert (tower.stats.calls, tower.stats.patches, tower.stats.largest, tower.stats.retried) == (2, 7, 6, 0)
    assert tower.stats.per_call == 3.5


def test_a_frame_that_waits_alone_is_a_call_of_its_own_to_the_bit() -> None:
    model = random_model("qwen3_vl")
    tower, patch = Tower(model), patch_of(model, 1)
    (alone,) = Looking(tower, [patch]).tokens()
    assert torch.equal(alone.embeds, model.encode(patch.frames, [(0.0, 0.5)])[0].embeds)


def test_a_stream_that_goes_while_it_waits_takes_nothing_with_it() -> None:
    held = Held(random_model("qwen3_vl"))
    tower, model = Tower(held.model), random_model("qwen3_vl")
    Looking(tower, [patch_of(model, 0)])
    assert held.entered.wait(LONG)
    going, staying = Looking(tower, [patch_of(model, 1)]), Looking(tower, [patch_of(model, 2)])
    until(lambda: tower.waiting == 2)
    tower.leave(going.viewer)
    (gone,) = going.result()  # at once, while the tower is still at work
    assert isinstance(gone, StreamClosed) and not held.release.is_set()
    held.release.set()
    assert_same(staying.tokens()[0], model.encode(patch_of(model, 2).frames, [(0.0, 0.5)])[0])
    assert held.batches == [1, 1]


def test_a_stream_that_goes_while_its_frame_is_in_the_tower_takes_nothing_with_it() -> None:
    """Also when the thread that runs the call is its own."""
    held = Held(random_model("qwen3_vl"))
    tower, model = Tower(held.model), random_model("qwen3_vl")
    going = Looking(tower, [patch_of(model, 1)])
    assert held.entered.wait(LONG)
    staying = Looking(tower, [patch_of(model, 2)])
    until(lambda: tower.waiting == 1)
    tower.leave(going.viewer)
    held.release.set()
    assert len(staying.tokens()) == 1
    assert len(going.result()) == 1
    assert isinstance(tower.encode(going.viewer, [patch_of(model, 3)])[0], StreamClosed), "it is gone for good"


def test_a_frame_that_cannot_be_encoded_costs_no_other_stream_a_frame() -> None:
    held = Held(random_model("qwen3_vl"))
    tower, model = Tower(held.model), random_model("qwen3_vl")
    Looking(tower, [patch_of(model, 0)])
    assert held.entered.wait(LONG)
    frames = torch.full((2, 3, 32, 48), BAD, dtype=torch.uint8)
    good = Looking(tower, [patch_of(model, 1)])
    bad = Looking(tower, [patch_of(model, 2), Patch(frames, (2, 3), 0.5, 0.5)])
    until(lambda: tower.waiting == 3)
    held.release.set()
    before, failed = bad.result()
    assert isinstance(before, Encoded) and isinstance(failed, RuntimeError)
    for found, seed in ((good.tokens()[0], 1), (before.tokens, 2)):
        assert_same(found, model.encode(patch_of(model, seed).frames, [(0.0, 0.5)])[0])
    assert held.batches[:2] == [1, 3] and tower.stats.retried == 1


def test_whatever_ends_the_thread_that_encodes_for_others_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held(random_model("qwen3_vl"))
    tower, model = Tower(held.model), random_model("qwen3_vl")
    failures: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda about: failures.append(about.exc_value))
    monkeypatch.setattr(tower.costs, "learn", lambda *about: 1 / 0)
    Looking(tower, [patch_of(model, 0)])
    assert held.entered.wait(LONG)
    both = [Looking(tower, [patch_of(model, i)]) for i in (1, 2)]
    until(lambda: tower.waiting == 2)
    held.release.set()
    found = [looker.result() for looker in both]
    until(lambda: len(failures) == 2)
    assert sorted(len(one) for one in found) == [0, 1], "the one whose thread it was hears of it by that"
    assert isinstance(max(found, key=len)[0], ModelError) and tower.waiting == 0


# how much goes into a call


def test_a_call_costs_no_more_than_planned_and_what_is_due_first_goes_first() -> None:
    """A patch costs 6 ms, a call 1 ms more; with a frame each 160 ms a call may take 20 ms."""
    held = Held(random_model("qwen3_vl"))
    tower = Tower(held.model, clock=lambda: 0.0, costs=CostModel((1e-3, 1e-3, 0.0)))
    model = random_model("qwen3_vl")
    Looking(tower, [patch_of(model, 0)])
    assert held.entered.wait(LONG)
    pixels = patch_of(model, 1).frames
    for due in (math.inf, 4.0, 3.0, 2.0, 1.0):
        Looking(tower, [Patch(pixels, (2, 3), min(due, 9.0), 0.16)], paced=due < math.inf, due=due)
    until(lambda: tower.waiting == 5)
    assert tower.fitting(6, 8) == 3
    held.release.set()
    until(lambda: tower.stats.patches == 6)
    assert held.calls == [[0.0], [1.0, 2.0, 3.0], [4.0, 9.0]]


def test_files_alone_may_take_longer_calls_than_beside_a_camera() -> None:
    tower = Tower(random_model("qwen3_vl"), clock=lambda: 0.0, costs=CostModel((1e-3, 1e-3, 0.0)))
    assert tower.fitting(6, 100) == 41  # a quarter of a second
    camera = tower.enter(paced=True)
    camera.interval = 0.16
    assert tower.fitting(6, 100) == 3
    tower.leave(camera)
    assert tower.fitting(6, 100) == 41


def test_a_patch_that_costs_more_than_a_call_should_is_encoded_nevertheless() -> None:
    model = random_model("qwen3_vl")
    tower = Tower(model, clock=lambda: 0.0, costs=CostModel((0.0, 10.0, 0.0)))
    looker = Looking(tower, [patch_of(model, i) for i in range(3)])
    assert [one.batch for one in looker.result() if isinstance(one, Encoded)] == [1, 1, 1]
