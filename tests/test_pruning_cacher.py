"""Reuse in the vision tower: exact where everything is computed, cheap where nothing changed, right after a cut."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, random_model
from torch import Tensor

from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import load_model
from streamvlm.pruning.cacher import Cacher, _Cacher
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import Patch, StreamFacts
from streamvlm.settings import ModelConfig
from streamvlm.types import VisionTokens
from streamvlm.world.story import Story
from streamvlm.world.video import frames


def pictures(n: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8, generator=generator) for _ in range(n)]


def patch_of(model: VisionLanguageModel, picture: Tensor, at: float) -> Patch:
    return Patch(torch.stack([picture] * model.pixels.temporal), model.token_grid(48, 64), at, 0.5)


def started(family: str, **settings: float | None) -> tuple[VisionLanguageModel, _Cacher]:
    model = random_model(family)
    stage = Cacher(**settings).start(StreamFacts(model, 2.0, 16.0))  # type: ignore[arg-type]
    assert isinstance(stage, _Cacher)
    return model, stage


@torch.inference_mode()
def encoded(stage: _Cacher, patch: Patch) -> VisionTokens:
    return stage.encode(patch)


def truth(model: VisionLanguageModel, patch: Patch) -> VisionTokens:
    return model.encode(patch.frames, [(patch.pts, patch.duration)])[0]


def close(a: VisionTokens, b: VisionTokens) -> bool:
    pairs = zip((a.embeds, *a.deepstack), (b.embeds, *b.deepstack), strict=True)
    return all(torch.allclose(x, y, atol=1e-4) for x, y in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_computing_every_row_again_is_the_official_tower(family: str) -> None:
    model, stage = started(family, threshold=1.01, bypass=1.0)
    for i, picture in enumerate(pictures(4)):
        patch = patch_of(model, picture, i * 0.5)
        assert close(encoded(stage, patch), truth(model, patch))
        assert stage.computed == pytest.approx(1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_still_frame_costs_its_keys_and_is_the_same(family: str) -> None:
    model, stage = started(family)
    first, second = (patch_of(model, pictures(1)[0], t) for t in (0.0, 0.5))
    assert close(encoded(stage, first), truth(model, first)) and stage.computed == pytest.approx(1.0)
    assert close(encoded(stage, second), truth(model, second)) and stage.computed < 0.1


def error(got: VisionTokens, right: VisionTokens, stale: VisionTokens) -> float:
    """How far features are from the truth, 1 being where those of the frame before are."""
    return float((got.embeds - right.embeds).norm() / (stale.embeds - right.embeds).norm())


def test_after_a_cut_everything_is_new_and_not_by_the_published_quarter() -> None:
    model = load_model(ModelConfig())
    scenes = [next(frames(Story(seed), 1.0, 1.0))[1] for seed in (3, 4)]
    shown = [torch.from_numpy(scene.copy()).permute(2, 0, 1) for scene in scenes]
    before, after = (
        Patch(torch.stack([picture] * model.pixels.temporal), (4, 4), at, 0.5)
        for picture, at in zip(shown, (0.0, 0.5), strict=True)
    )
    errors = []
    for method in (Cacher(), Cacher(ratio=0.25)):
        stage = method.start(StreamFacts(model, 2.0, 16.0))
        assert isinstance(stage, _Cacher)
        stale = encoded(stage, before)
        errors.append(error(encoded(stage, after), truth(model, after), stale))
    assert errors[0] < 1e-3 and errors[1] > 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_change_costs_little_and_is_seen(family: str) -> None:
    picture = pictures(1)[0]
    changed = picture.clone()
    changed[:, :16, :16] = 255 - changed[:, :16, :16]
    model, stage = started(family)
    stale = encoded(stage, patch_of(model, picture, 0.0))
    patch = patch_of(model, changed, 0.5)
    assert error(encoded(stage, patch), truth(model, patch), stale) < 0.8
    assert 0.1 < stage.computed < 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_two_streams_and_the_model_itself_do_not_notice_each_other(family: str) -> None:
    model, one = started(family)
    _, other = started(family)
    a, b = pictures(2)
    plain = truth(model, patch_of(model, a, 0.0))
    alone = [encoded(started(family)[1], patch_of(model, p, 0.0)).embeds for p in (a, b)]
    assert torch.equal(encoded(one, patch_of(model, a, 0.0)).embeds, alone[0])
    assert torch.equal(encoded(other, patch_of(model, b, 0.0)).embeds, alone[1])
    assert close(encoded(one, patch_of(model, a, 0.5)), plain)
    assert torch.equal(truth(model, patch_of(model, a, 0.0)).embeds, plain.embeds)


def test_everything_is_computed_again_after_a_while_and_after_a_reset() -> None:
    model, stage = started("qwen3_vl", refresh=1.0)
    shares = []
    for i in range(6):
        if i == 5:
            stage.reset()
        encoded(stage, patch_of(model, pictures(1)[0], i * 0.5))
        shares.append(stage.computed > 0.9)
    assert shares == [True, False, True, False, True, True]


def test_what_the_tower_saved_is_counted() -> None:
    model = random_model("qwen3_vl")
    economy = Economy((Cacher(),), StreamFacts(model, 2.0, 16.0))
    saved = [economy.see(patch_of(model, pictures(1)[0], i * 0.5)).saved for i in range(3)]
    assert saved[0].tower_skipped == 0 and saved[1].tower_skipped > 0.9 and saved[1].tower_flops > 0
    assert saved[1].pruned == 0
