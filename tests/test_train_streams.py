"""What the later stages of the embedded model's course rest on: dropped tokens, unsteady pictures, fast attention."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from streamvlm.prompts import NO, YES, watch_probe
from streamvlm.train.architecture import Shape, new_model
from streamvlm.train.attention import ROWS, tiled_attention, tiles
from streamvlm.train.augment import SWAY, drifting, sway, unsteady
from streamvlm.train.clips import Clips, ClipSpec, load_clips
from streamvlm.train.curriculum import seen_pairs
from streamvlm.train.episodes import Episode, Recipe, make_episode
from streamvlm.train.gallery import Features, Gallery
from streamvlm.train.learner import Labels, Learner
from streamvlm.train.packing import Packer, visibility
from streamvlm.train.redundancy import Dropping, keep_mask
from streamvlm.train.weights import Weights
from streamvlm.world.conditions import facts

MICRO = Shape(
    vision_depth=2, vision_hidden=32, text_layers=2, text_hidden=32, text_intermediate=64, heads=2, kv_heads=1,
    head_dim=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return load_clips(ClipSpec("slow", 200, 2, 48, 4), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def packer(tmp_path_factory: pytest.TempPathFactory) -> Packer:
    return Packer(new_model(MICRO, 0, tmp_path_factory.mktemp("model")))


def test_tiled_attention_is_masked_attention_and_so_are_its_gradients() -> None:
    """Two episodes of different lengths, packed; random visibility that is causal."""
    rng = torch.Generator().manual_seed(0)
    n, heads, kv, d = ROWS + 70, 4, 2, 16
    mask = torch.rand(2, 1, n, n, generator=rng).tril() > 0.7
    mask |= torch.eye(n, dtype=torch.bool)
    there = torch.arange(n) < torch.tensor([[n], [n - 100]])
    shapes = ((1, heads, 2 * n - 100, d), (1, kv, 2 * n - 100, d), (1, kv, 2 * n - 100, d))
    query, key, value = (torch.randn(shape, generator=rng, requires_grad=True) for shape in shapes)
    mine, _ = tiled_attention(torch.nn.Identity(), query, key, value, None, d**-0.5, tiles=tiles(mask, there))
    dense = torch.zeros(2 * n - 100, 2 * n - 100, dtype=torch.bool)
    dense[:n, :n], dense[n:, n:] = mask[0, 0], mask[1, 0, :-100, :-100]
    oracle = scaled_dot_product_attention(query, key, value, dense, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(mine, oracle, atol=1e-5, rtol=1e-5)
    weight = torch.randn(mine.shape, generator=rng)
    ours = torch.autograd.grad((mine * weight).sum(), (query, key, value))
    theirs = torch.autograd.grad((oracle * weight).sum(), (query, key, value))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_questions_cost_nothing_for_each_other() -> None:
    """Tiles cover what some row of theirs sees: of 40 questions on one frame, that frame and the tile itself."""
    block = torch.cat((torch.zeros(60, dtype=torch.int64), torch.arange(1, 41).repeat_interleave(32)))[None]
    mask = visibility(block, torch.zeros_like(block)).unsqueeze(1)
    covered = sum(tile.bias.numel() for tile in tiles(mask, block >= 0))
    assert covered <= block.shape[1] * (60 + ROWS + 32)


def test_a_resting_tower_is_asked_once_for_what_it_has_seen() -> None:
    frames = torch.randint(0, 256, (2, 10, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    asked = []

    def see(pairs: torch.Tensor) -> Features:
        asked.append(len(pairs))
        shown = pairs.float().flatten(2).mean(2)  # [n, 2]: of the frame before, and of the frame
        return Features(shown[:, :1, None], (shown[:, 1:, None],))

    def check(clip: list[int], frame: list[int], before: list[int], gallery: Gallery) -> None:
        seen = gallery.features(see, torch.tensor(clip), torch.tensor(frame), torch.tensor(before))
        for c, f, b, embed, deep in zip(clip, frame, before, seen.embeds, seen.deepstack[0], strict=True):
            assert embed.item() == frames[c, b].float().mean() and deep.item() == frames[c, f].float().mean()

    gallery = Gallery(frames)
    check([0, 1, 0, 0], [3, 3, 3, 5], [3, 1, 3, 4], gallery)
    assert len(asked) == 1
    check([0, 0, 1], [5, 3, 3], [4, 3, 1], gallery)
    assert len(asked) == 1, "all of it was known"
    check([0], [5], [5], gallery)
    assert len(asked) == 2
    gallery.forget()
    check([0], [5], [5], gallery)
    assert len(asked) == 3
    small = Gallery(frames, most=3 * 2 * 4)  # room for three
    for frame in range(9):
        check([0, 1], [frame, frame], [frame, frame], small)


def test_a_still_picture_is_kept_once_and_a_change_is_kept_where_it_is() -> None:
    frames = torch.full((10, 3, 64, 64), 60, dtype=torch.uint8)
    frames[6:, :, 20:30, 36:46] = 220  # within the token in row 1, column 2
    keep = keep_mask(frames, Dropping(refresh=100))
    assert keep[0].all()
    assert keep[1:].nonzero().tolist() == [[5, 6]]  # frame 6, token 1 * 4 + 2


def test_what_fades_slowly_is_kept_again_in_time() -> None:
    """Against the frame before, no step of the fade would ever be large enough."""
    light = torch.linspace(1, 0.3, 40).view(-1, 1, 1, 1)
    frames = (torch.full((40, 3, 64, 64), 200.0) * light).to(torch.uint8)
    rule = Dropping(tau=0.04, refresh=100)
    keep = keep_mask(frames, rule)
    assert 2 <= keep[1:, 5].sum() <= 20
    last = 0
    for index in range(1, 40):
        last = index if keep[index, 5] else last
        assert (frames[index].float() - frames[last].float()).abs().max() / 255 < rule.tau + 0.02


def test_refresh_and_cap_hold() -> None:
    noise = torch.randint(0, 256, (12, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert keep_mask(noise, Dropping(cap=5))[1:].sum(1).max() == 5
    still = torch.zeros(12, 3, 64, 64, dtype=torch.uint8)
    assert keep_mask(still, Dropping(refresh=4)).all(1).nonzero().flatten().tolist() == [0, 4, 8]


def test_dropped_tokens_leave_their_rows_and_nothing_moves(clips: Clips, packer: Packer) -> None:
    whole = make_episode(clips, 12, 8, random.Random(3), Recipe(recall=1.0))
    kept = torch.rand(len(whole.shots), 16, generator=torch.Generator().manual_seed(1)) < 0.3
    full, thin = packer.rows(whole), packer.rows(replace(whole, kept=kept))
    assert len(full.ids) - len(thin.ids) == int((~kept).sum())
    there = ~full.visual
    there[full.visual] = kept.flatten()
    for name in ("ids", "positions", "block", "moment", "targets"):
        assert torch.equal(getattr(thin, name), getattr(full, name)[there]), name
    assert torch.equal(packer.batch([replace(whole, kept=kept)]).kept, kept)


def test_episodes_with_dropping_keep_the_sink_the_recalled_and_the_windows_first_frame(clips: Clips) -> None:
    rng = random.Random(0)
    episodes: list[Episode] = [make_episode(clips, 12, 6, rng, Recipe(recall=0.5, dropping=1.0)) for _ in range(20)]
    for episode in episodes:
        assert episode.kept is not None
        assert episode.kept.shape == (len(episode.shots), 16)
        assert episode.kept[: 1 + episode.past + episode.recalled + 1].all()
    shares = [e.kept[e.past + e.recalled + 2 :].float().mean() for e in episodes if e.kept is not None]
    assert 0.02 < torch.stack(shares).mean() < 0.6


def test_a_swayed_picture_is_the_picture_elsewhere(clips: Clips) -> None:
    frames = clips.frames[0, :4]
    right = sway(frames, torch.full((4,), 2.0), torch.zeros(4))
    assert torch.equal(right[..., 2:], frames[..., :-2])
    assert torch.equal(right[..., :1], frames[..., :1])  # edges repeat
    pairs = torch.stack((frames, frames), dim=1)
    assert torch.equal(unsteady(pairs, 7, 0.0), pairs)
    shaken = unsteady(pairs, 7, 0.9)
    assert torch.equal(shaken, unsteady(pairs, 7, 0.9)) and not torch.equal(shaken, pairs)
    assert torch.equal(shaken[:, 0], shaken[:, 1]), "both pictures of a pair are displaced alike"
    assert SWAY < 16, "a token would show its neighbour"


def test_drifting_moves_smoothly(clips: Clips) -> None:
    still = clips.frames[0, :1].expand(48, -1, -1, -1)
    seen = drifting(still, 4.0, random.Random(5), 1.0).float()
    steps = (seen[1:] - seen[:-1]).abs().mean((1, 2, 3))
    whole = (seen - seen[0]).abs().mean((1, 2, 3)).max()
    assert whole > 0 and steps.max() < whole


def test_the_cache_of_clips_is_shared_by_steady_and_unsteady_ones(tmp_path: Path) -> None:
    spec = ClipSpec("slow", 300, 2, 8, 4)
    steady = load_clips(spec, tmp_path)
    moved = load_clips(replace(spec, unsteady=1.0), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert not torch.equal(steady.frames, moved.frames)
    assert torch.equal(moved.frames, load_clips(replace(spec, unsteady=1.0), tmp_path).frames)


def test_frames_are_labelled_with_what_happens_in_them(clips: Clips, packer: Packer) -> None:
    """Against the event log: the label of every frame two or more into the window, at the frame's last row."""
    rng = random.Random(0)
    for _ in range(10):
        episode = make_episode(clips, 16, 2, rng, Recipe(recall=0.5))
        batch = packer.batch([episode])
        assert len(batch.happenings.row) == 14
        for (_, row), (when, what, color, shape) in zip(
            batch.happenings.row.tolist(), batch.happenings.label.tolist(), strict=True
        ):
            assert batch.block[0, row] == 0 and not batch.visual[0, row]
            shots = int((batch.visual[0, :row].diff(prepend=torch.tensor([False])) & batch.visual[0, :row]).sum())
            shot = episode.shots[shots - 1]
            time = shot.frame / clips.spec.fps
            begun = [e for e in clips.stories[shot.clip].until(time + 1e-9) if e.kind != "start"]
            over = [e for e in begun if e.stop <= time]
            if when == 0:
                assert not begun or begun[-1].stop <= time - 1
                assert (what, color, shape) == (0, 0, 0)
            elif when == 1:
                assert begun[-1].stop > time
            else:
                assert begun[-1] is over[-1] and over[-1].stop > time - 1
            if when:
                assert (color > 0) == (begun[-1].thing is not None) == (shape > 0)


def test_the_frame_before_is_the_one_the_window_showed_before(clips: Clips, packer: Packer) -> None:
    episode = make_episode(clips, 10, 2, random.Random(1), Recipe(recall=1.0))
    before = packer.batch([episode]).before.tolist()
    window = 1 + episode.past + episode.recalled
    assert before[0] == episode.shots[0].frame, "nothing came before the sink"
    assert before[window + 1 :] == [shot.frame for shot in episode.shots[window:-1]]
    stride = episode.shots[window + 1].frame - episode.shots[window].frame
    assert before[window] == max(0, episode.shots[window].frame - stride)


def test_every_loss_of_a_stage_is_learnt_from(clips: Clips, packer: Packer) -> None:
    learner = Learner(packer._model)  # type: ignore[arg-type]
    batch = packer.batch([make_episode(clips, 10, 6, random.Random(s), Recipe(recall=0.5)) for s in range(2)])
    clip, frame = batch.where
    labels = Labels(clips.labels[clip, frame], clips.labels[clip, batch.before])
    losses = learner(batch, seen_pairs(batch, clips), labels, Weights(1.0, 1.0, 1.0))
    assert set(losses) == {"loss", "answer", "naming", "pointing", "telling"}
    parts = [losses[name] for name in losses if name != "loss"]
    torch.testing.assert_close(losses["loss"], torch.stack(parts).sum())
    losses["loss"].backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    with pytest.raises(ValueError, match="negative"):
        Weights(naming=-1.0)


def test_without_questions_the_vision_tower_is_trained_alone(clips: Clips, packer: Packer) -> None:
    learner = Learner(packer._model)  # type: ignore[arg-type]
    learner.zero_grad()
    batch = packer.batch([make_episode(clips, 3, 0, random.Random(s)) for s in range(2)])
    clip, frame = batch.where
    labels = Labels(clips.labels[clip, frame], clips.labels[clip, batch.before])
    losses = learner(batch, seen_pairs(batch, clips), labels, Weights(naming=1.0))
    assert set(losses) == {"loss", "naming"}
    losses["loss"].backward()
    moved = {name for name, parameter in learner.named_parameters() if parameter.grad is not None}
    assert {"naming.weight", "module.model.visual.patch_embed.proj.weight"} <= moved
    assert not any("language_model" in name for name in moved)


def test_conditions_are_asked_about_scenes_that_change_with_every_frame(tmp_path: Path) -> None:
    cuts = load_clips(ClipSpec("cuts", 300, 3, 24, 2), tmp_path)
    rng, answers = random.Random(4), Counter[tuple[bool, bool]]()
    words = watch_probe("|").split("|")
    for _ in range(60):
        episode = make_episode(cuts, 4, 6, rng, Recipe({"watch": 1.0}))
        for asked in episode.asked:
            shot = episode.shots[asked.shot]
            scene = cuts.scene(shot.clip, shot.frame)
            assert scene is not None
            condition = asked.question.text.removeprefix(words[0]).removesuffix(words[1])
            holds = condition in facts(scene)
            assert asked.question.answer == (YES if holds else NO), condition
            assert " just " not in condition, "nothing happens there that could be asked about"
            answers["the sign shows" in condition, holds] += 1
    assert min(answers[True, True], answers[True, False]) > 10
