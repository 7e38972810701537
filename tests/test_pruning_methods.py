"""Every method by itself, and the defects of published code that ours must not have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pruned import FULL, GRID, HIDDEN, PRUNERS, Line, block_of, facts, random_blocks
from torch import Tensor
from torch.nn.functional import normalize

from streamvlm.errors import ModelError
from streamvlm.memory.blocks import KVBlock
from streamvlm.pruning.economy import Economy, cut_rows
from streamvlm.pruning.infinipot import InfiniPot
from streamvlm.pruning.keynorm import KeyNorm, places
from streamvlm.pruning.livevlm import LiveVlm
from streamvlm.pruning.protocols import KVCompressor, Patch, TokenBlock
from streamvlm.pruning.resv import ReSv
from streamvlm.pruning.spec import parse_prune
from streamvlm.pruning.typical import Past, likeness
from streamvlm.types import Kind


def same(a: TokenBlock, b: TokenBlock) -> bool:
    return torch.equal(a.tokens.slot, b.tokens.slot) and torch.equal(a.tokens.embeds, b.tokens.embeds)


@pytest.mark.parametrize("spec", PRUNERS)
def test_what_is_kept_is_in_order_with_its_deepstack(spec: str) -> None:
    line = Line(spec)
    for block in random_blocks(12):
        kept = line(block).tokens
        assert kept.slot.tolist() == sorted(set(kept.slot.tolist())) and len(kept) <= FULL
        assert torch.allclose(kept.deepstack[0], kept.embeds * 2)  # both were cut and merged the same way


@pytest.mark.parametrize("spec", PRUNERS)
def test_two_streams_in_turns_are_as_each_alone(spec: str) -> None:
    streams = random_blocks(9, seed=1), random_blocks(9, seed=2)
    alone = [[line(b) for b in blocks] for line, blocks in zip((Line(spec), Line(spec)), streams, strict=True)]
    lines = Line(spec), Line(spec)
    for i, pair in enumerate(zip(*streams, strict=True)):
        for own, line, block in zip(alone, lines, pair, strict=True):
            assert same(line(block), own[i])


@pytest.mark.parametrize("spec", PRUNERS)
def test_a_second_video_sees_nothing_of_the_first(spec: str) -> None:
    used, fresh = Line(spec), Line(spec)
    for block in random_blocks(9, seed=1):
        used(block)
    used.reset()
    if "budget" not in spec:  # a budget keeps what it has learnt of its stream
        assert all(same(used(block), fresh(block)) for block in random_blocks(9, seed=2))


@pytest.mark.parametrize("spec", PRUNERS)
def test_a_patch_of_which_nothing_is_left_harms_nobody(spec: str) -> None:
    line = Line(spec)
    line(random_blocks(1)[0])
    empty = random_blocks(2)[1].keep(torch.zeros(FULL, dtype=torch.bool))
    if "roi" not in spec:
        assert len(line(empty)) == 0


@pytest.mark.parametrize(("spec", "share"), [("stc(0.25)", 4), ("cap(3)", 3), ("tome(0.5)", 8), ("exemplars", 4)])
def test_budgets_are_exact(spec: str, share: int) -> None:
    blocks = [block_of(torch.ones(FULL, HIDDEN) + 0.01 * torch.randn(FULL, HIDDEN), i * 0.5) for i in range(2)]
    line = Line(spec)
    assert [len(line(b)) for b in blocks][-1] == share


# Defects of published code


def turning(frames: int, tau: float) -> list[TokenBlock]:
    """Every token turns by 90 degrees in all, ever so slowly."""
    a, b = normalize(torch.randn(2, FULL, HIDDEN), dim=2)
    b = normalize(b - (a * b).sum(1, keepdim=True) * a, dim=1)
    angles = [math.pi / 2 * i / (frames - 1) for i in range(frames)]
    return [block_of(a * math.cos(x) + b * math.sin(x), i * 0.5) for i, x in enumerate(angles)]


@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5])
def test_slow_change_is_kept_and_not_by_the_published_rule(tau: float) -> None:
    blocks = turning(120, tau)
    published, ours = (Line(f"dtd(by=features, tau={tau}, against={a}, refresh=1000)") for a in ("previous", "kept"))
    assert sum(len(published(b)) for b in blocks) == FULL  # the first frame, and nothing ever after
    assert 0 < sum(len(ours(b)) for b in blocks) - FULL < 0.1 * 120 * FULL


def test_a_slow_fade_is_kept_by_pixels_too() -> None:
    light = [torch.full((3, 64, 64), 40 + i, dtype=torch.uint8) for i in range(120)]
    blocks = [block_of(torch.randn(FULL, HIDDEN), i * 0.5, p) for i, p in enumerate(light)]
    published = Line("dtd(tau=0.04, against=previous, slack=0, peak=16, refresh=1000)")
    assert sum(len(published(b)) for b in blocks) == FULL
    ours = Line("dtd(refresh=1000)")
    shown = torch.zeros(FULL)
    for i, block in enumerate(blocks):
        shown[ours(block).tokens.slot] = 40.0 + i
        assert (40 + i - shown).max() <= 0.04 * 255 + 1  # what was kept is never further from the truth


def test_an_edge_may_sway_unnoticed_but_not_move_away() -> None:
    def edge(at: int) -> Tensor:
        picture = torch.full((3, 64, 64), 30, dtype=torch.uint8)
        picture[:, :, :at] = 220
        return picture

    line = Line("dtd")
    kept = [len(line(block_of(torch.randn(FULL, HIDDEN), i * 0.5, edge(at)))) for i, at in enumerate((24, 25, 23, 30))]
    assert kept == [FULL, 0, 0, 4]
    strict = Line("dtd(slack=0)")
    assert [len(strict(block_of(torch.randn(FULL, HIDDEN), 0.0, edge(at)))) for at in (24, 25)] == [FULL, 4]


def test_what_stands_around_a_change_may_be_kept_with_it() -> None:
    plain = torch.full((3, 64, 64), 90, dtype=torch.uint8)
    changed = plain.clone()
    changed[:, 20:28, 4:12] = 250  # in the place of row 1, column 0
    for spread, kept in ((0, [4]), (1, [0, 1, 4, 5, 8, 9])):
        line = Line(f"dtd(spread={spread})")
        line(block_of(torch.randn(FULL, HIDDEN), 0.0, plain))
        assert line(block_of(torch.randn(FULL, HIDDEN), 0.5, changed)).tokens.slot.tolist() == kept


@pytest.mark.parametrize("fps", [2, 8, 30])
def test_frames_are_told_apart_at_any_rate(fps: int) -> None:
    ids = [
        int(2 * 2 / fps * k) for k in range(8)
    ]  # Qwen2.5-VL's t of two-frame patches, which the published code groups by
    assert (len(set(ids)) < 8) == (fps > 2)
    changes = [0, 0, 0, 1, 1, 1, 1, 1]
    blocks = random_blocks(2, span=2 / fps)
    line = Line("dtd(by=features)")
    kept = []
    for i, which in enumerate(changes):
        source = blocks[which]
        kept.append(len(line(replace(source, patch=replace(source.patch, pts=i * 2 / fps)))))
    changed = (normalize(blocks[0].tokens.embeds, dim=1) * normalize(blocks[1].tokens.embeds, dim=1)).sum(1) < 0.75
    assert kept == [FULL, 0, 0, int(changed.sum()), 0, 0, 0, 0]


def drifting(frames: int) -> list[Tensor]:
    """Embeddings whose quiet channels change slowly."""
    generator = torch.Generator().manual_seed(3)
    scale = torch.rand(64, generator=generator) + 0.5
    made = []
    for _ in range(frames):
        scale = scale * (1 + 0.02 * torch.randn(64, generator=generator))
        made.append(torch.randn(FULL, 64, generator=generator) * scale + 1)
    return made


def test_a_column_is_always_the_same_channel() -> None:
    frames = drifting(40)
    published = [f.var(0).topk(32, largest=False).indices for f in frames]
    in_place = [float((p == published[0]).float().mean()) for p in published[1:]]
    assert max(in_place) < 0.5  # the published means are averages of different channels
    past = Past()
    columns = [past.reduce(torch.eye(64) + 0.0 * f[:1]) for f in frames[:1]]
    for frame in frames:
        past.typicality(frame)
        columns.append(past.reduce(torch.eye(64)))
    assert all(torch.equal(c, columns[0]) for c in columns)


def test_typicality_is_the_formula() -> None:
    frames = drifting(3)
    past = Past()
    scores = [past.typicality(f) for f in frames]
    channels = frames[0].var(0, correction=0).argsort(stable=True)[:32].sort().values
    unit = [normalize(f[:, channels], dim=1) for f in frames]
    mean = normalize(torch.stack([u.mean(0) for u in unit]).mean(0), dim=0)
    square = [(unit[2] - other).square().sum(1) for other in (unit[2].mean(0), mean)]
    expected = sum(torch.exp(-s / (2 * 2.0**k)) for s in square for k in range(-3, 2))
    assert torch.allclose(scores[2], expected, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(likeness(unit[0], unit[0][0])[0], torch.tensor(5.0))


@pytest.mark.parametrize(
    "spec", ["dtd(tau=0.01, refresh=1000)", "gate(longest=1000)", "stc(0.9)", "vidcom2(0.9)", "dycoke(0.9)"]
)
def test_the_rate_of_a_budget_is_held(spec: str) -> None:
    line_of: Callable[[float], Economy] = lambda rate: Economy(  # noqa: E731
        parse_prune(f"{spec}+budget({rate}, seconds=4)"), facts()
    )
    rates = []
    for rate in (6.0, 12.0):
        economy, kept = line_of(rate), 0
        generator = torch.Generator().manual_seed(0)
        for i in range(160):
            frames = torch.full((2, 3, 64, 64), 120, dtype=torch.uint8)
            steps = torch.randint(0, 120, (4, 4), generator=generator).repeat_interleave(16, 0).repeat_interleave(16, 1)
            frames += steps.to(torch.uint8)
            tokens = economy.see(Patch(frames, GRID, float(i), 1.0)).tokens
            kept += len(tokens) if i >= 40 else 0
        rates.append(kept / 120)
    assert rates == pytest.approx([6.0, 12.0], rel=0.25)


@pytest.mark.parametrize("spec", ["budget(5)", "cap(5)+budget(5)", "cacher+budget(5)"])
def test_a_budget_with_nothing_to_move_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="moves the thresholds of gate, dtd, roi, stc, vidcom2 or dycoke"):
        Economy(parse_prune(spec), facts())


def test_carriers_are_for_models_trained_for_them() -> None:
    with pytest.raises(ModelError, match="not trained to read them"):
        Economy(parse_prune("carriers"), facts())


# Compression of what leaves the window


def kv(n: int = FULL, seed: int = 0, start: float = 0.0, text: int = 2) -> KVBlock:
    """A 4 x 4 frame between delimiters, random keys and values."""
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 2, 2, n + 2 * text, 8, generator=generator)
    head = torch.arange(text).unsqueeze(1).expand(-1, 3)
    rows, columns = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    grid = torch.stack((torch.zeros(16, dtype=torch.int64), rows, columns), 1) + text
    tail = torch.arange(text + 4, text + 4 + text).unsqueeze(1).expand(-1, 3)
    positions = torch.cat((head, grid, tail))
    return KVBlock(keys, values, positions, 2 * text + 4, Kind.VISION, start, start + 0.5)


COMPRESSORS = [KeyNorm(0.5), InfiniPot(0.5), LiveVlm(0.5), ReSv(apart=20)]


@pytest.mark.parametrize("method", COMPRESSORS, ids=lambda m: m.name)
def test_compression_keeps_text_order_and_places(method: KeyNorm | InfiniPot | LiveVlm | ReSv) -> None:
    economy = Economy((method,), facts())
    left = 0
    for i in range(6):
        block = kv(seed=i, start=i * 0.5)
        small = economy.compress(block)
        wanted = {tuple(p) for p in block.positions.tolist()}
        at = [block.positions.tolist().index(p) for p in small.positions.tolist()]
        assert at == sorted(at) and {tuple(p) for p in small.positions.tolist()} <= wanted
        assert torch.equal(small.keys, block.keys[:, :, at]) and torch.equal(small.values, block.values[:, :, at])
        assert {0, 1, 18, 19} <= set(at) and small.extent == block.extent
        left += len(small)
    assert left < 6 * 20


def test_small_keys_are_kept() -> None:
    block = kv()
    block.keys[:, :, 5:9] *= 0.01
    kept = Economy((KeyNorm(0.25),), facts()).compress(block)
    assert places(kept)[2:6] == places(block)[5:9]


def test_the_place_of_a_row_survives_any_number_of_compressions() -> None:
    """Published: survivors are read as if they were whole frames, so that a third are where they are believed to be."""
    compressor = InfiniPot(0.75, tar=1.0).start(facts())
    vision = torch.zeros(20, dtype=torch.bool)
    vision[2:18] = True
    believed, right = 0, 0
    for i in range(12):
        block, mask = kv(seed=i), vision
        for _ in range(3):
            rows = compressor.plan(block, mask).nonzero().squeeze(1)
            block, mask = cut_rows(block, rows), mask[rows]
        of_grid = [p for p, is_vision in zip(places(block), mask.tolist(), strict=True) if is_vision]
        counted = [places(kv())[2:18][j] for j in range(len(of_grid))]  # what counting rows believes
        believed += sum(a == b for a, b in zip(of_grid, counted, strict=True))
        original = {tuple(p): kv(seed=i).keys[:, :, j] for j, p in enumerate(kv().positions.tolist())}
        right += sum(
            torch.equal(block.keys[:, :, j], original[tuple(p)]) for j, p in enumerate(block.positions.tolist())
        )
    total = sum(1 for _ in range(12)) * 11  # 16 -> 12 -> 9 -> 7 vision rows and 4 of text
    assert right == total and believed < 0.6 * 12 * 7


def test_what_never_changes_is_left_out_first() -> None:
    compressor = InfiniPot(0.25, tar=1.0, recent=4).start(facts())
    assert isinstance(compressor, KVCompressor)
    vision = torch.zeros(20, dtype=torch.bool)
    vision[2:18] = True
    for i in range(5):
        block, other = kv(seed=0), kv(seed=i + 1)
        block.keys[:, :, 4:8] = other.keys[:, :, 4:8]  # only these places change
        kept = compressor.plan(block, vision).nonzero().squeeze(1).tolist()
    assert kept == [0, 1, 4, 5, 6, 7, 18, 19]


def test_every_stretch_of_time_keeps_something() -> None:
    compressor = LiveVlm(0.1, bucket=2.0).start(facts())
    vision = torch.zeros(20, dtype=torch.bool)
    vision[2:18] = True
    kept: dict[int, int] = {}
    for i in range(40):
        block = kv(seed=i, start=i * 0.5)
        block.keys.mul_(0.1 if i > 20 else 3.0)  # later keys draw less
        kept[i // 4] = kept.get(i // 4, 0) + int(compressor.plan(block, vision)[vision].sum())
    assert all(n >= 1 for n in kept.values())


def test_a_row_like_one_that_was_kept_is_left_out() -> None:
    compressor = ReSv().start(facts())
    vision = torch.zeros(20, dtype=torch.bool)
    vision[2:18] = True
    assert int(compressor.plan(kv(seed=0), vision)[vision].sum()) == 16
    assert int(compressor.plan(kv(seed=0), vision)[vision].sum()) == 0
    assert int(compressor.plan(kv(seed=1), vision)[vision].sum()) == 16
