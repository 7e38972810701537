"""Pruning in the running engine: what is kept, that it keeps its place, and that every token is accounted for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, random_model
from test_agent import LONG
from torch import Tensor

from streamvlm import Agent, BlockStore, FramePerceived, StreamEnded, StreamStats, format_prune, parse_prune
from streamvlm.pruning.cap import Cap
from streamvlm.pruning.dtd import Dtd
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import Patch, StreamFacts
from streamvlm.types import Frame


def still(n: int = 12, size: int = 64, seed: int = 0) -> list[Tensor]:
    """The same picture over and over."""
    picture = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return [picture] * n


def shown(pictures: list[Tensor]) -> Iterator[Frame]:
    return (Frame(picture, i * 0.5, 0.5) for i, picture in enumerate(pictures))


def held(frames: Iterator[Frame], until: threading.Event) -> Iterator[Frame]:
    """The same, from when somebody listens: the first frame of a file is perceived unasked."""
    assert until.wait(LONG)
    yield from frames


def run(
    pictures: list[Tensor], family: str = "qwen3_vl", **options: Any
) -> tuple[list[FramePerceived], StreamStats, list[str]]:
    """Watch; the frame events, the counters, and what was answered along the way."""
    model = random_model(family)
    heard = threading.Event()
    with Agent(model) as agent, agent.watch(held(shown(pictures), heard), **options) as stream:
        channel = stream.listen()
        heard.set()
        answers = [stream.ask("what now?", at=at, max_new_tokens=4) for at in (1.0, 4.0)]
        stream.play()
        events = list(_until_end(channel))
        return events, stream.stats, [a.text() for a in answers]


def _until_end(events: Any) -> Iterator[FramePerceived]:
    for event in events:
        if isinstance(event, StreamEnded):
            return
        if isinstance(event, FramePerceived):
            yield event


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_left_out_is_bit_identical_to_no_pruning(family: str) -> None:
    pictures = [p for seed in range(3) for p in still(2, seed=seed)]
    plain, stats, answers = run(pictures, family)
    every = Cap(10_000)
    with_prune, stats_with, answers_with = run(pictures, family, prune=(every,))
    assert [e.tokens for e in with_prune] == [e.tokens for e in plain]
    assert answers_with == answers
    assert stats_with.tokens_seen == stats.tokens_seen and stats_with.saved.pruned == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_still_scene_costs_its_first_patch_only(family: str) -> None:
    events, stats, _ = run(still(), family, prune="dtd")
    assert [bool(e.kept) for e in events] == [True] + [False] * (len(events) - 1)
    assert stats.frames == 12 and events[-1].pts == 5.5
    assert stats.saved.unchanged == len(events) - 1 and stats.saved.tower_skipped == len(events) - 1
    assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped
    assert stats.saved.prefill_flops > 0 and stats.saved.tower_flops > 0


def test_an_answer_knows_that_nothing_changed_until_it_was_asked() -> None:
    model = random_model("qwen3_vl")
    with Agent(model) as agent, agent.watch(shown(still()), prune="dtd") as stream:
        answer = stream.ask("what now?", at=4.5, max_new_tokens=2)
        answer.text()
    assert answer.as_of is not None and 3.5 <= answer.as_of <= 4.5


def test_a_place_is_kept_again_before_it_leaves_the_window() -> None:
    events, stats, _ = run(still(40), prune="dtd", window_seconds=4.0)
    times = [e.pts for e in events if e.kept]
    assert len(times) > 3 and all(b - a <= 4.0 for a, b in pairwise(times))
    assert stats.tokens_window > 0


@pytest.mark.parametrize(("by", "tau"), [("pixels", 0.1), ("features", 0.001)])
def test_only_what_changed_is_kept(by: str, tau: float) -> None:
    plain = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    changed = plain.clone()
    changed[:, :20, :20] = 250
    events, _, _ = run([plain] * 6 + [changed] * 6, "llava_onevision", prune=f"dtd(by={by}, tau={tau})")
    kept = {e.pts: e.kept for e in events if e.kept}
    assert set(kept) == {0.0, 3.0} and 0 in kept[3.0]
    assert by == "features" or kept[3.0] == (0,)


def facts(family: str = "qwen3_vl") -> StreamFacts:
    return StreamFacts(random_model(family), 2.0, 16.0)


def patches(pictures: list[Tensor], family: str = "qwen3_vl") -> list[Patch]:
    model = random_model(family)
    t = model.pixels.temporal
    grid = model.token_grid(*pictures[0].shape[1:])
    return [Patch(torch.stack(pictures[i : i + t]), grid, i * 0.5, t * 0.5) for i in range(0, len(pictures), t)]


def noise(n: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(n)]


def test_kept_tokens_keep_their_places_and_their_deepstack_features() -> None:
    model = random_model("qwen3_vl")
    patch = patches(noise(2))[0]
    whole = model.encode(patch.frames, [(patch.pts, patch.duration)])[0]
    seen = Economy((Cap(5),), facts()).see(patch).tokens
    assert len(seen) == 5 and seen.slot.tolist() == sorted(seen.slot.tolist())
    assert torch.equal(seen.embeds, whole.embeds[seen.slot])
    assert all(torch.equal(a, b[seen.slot]) for a, b in zip(seen.deepstack, whole.deepstack, strict=True))
    full, less = model.frame_segment(whole), model.frame_segment(seen)
    rows = full.visual.nonzero().squeeze(1)[seen.slot]
    assert torch.equal(less.positions[less.visual], full.positions[rows]) and less.extent == full.extent


def test_what_a_cap_defers_comes_with_the_next_frame() -> None:
    events, _, _ = run(still(12), "llava_onevision", prune="dtd+cap(4)")
    slots = [set(e.kept) for e in events if e.kept]
    assert all(len(s) <= 4 for s in slots) and len(slots) > 1
    assert set.union(*slots) == set(range(9)) and sum(map(len, slots)) == 9


def test_two_streams_do_not_see_each_other() -> None:
    first, second = patches(noise(8, seed=1)), patches(noise(8, seed=2))
    alone = [Economy(parse_prune("dtd+cap(5)"), facts()) for _ in range(2)]
    apart = [[e.see(p).tokens.slot.tolist() for p in ps] for e, ps in zip(alone, (first, second), strict=True)]
    both = [Economy(parse_prune("dtd+cap(5)"), facts()) for _ in range(2)]
    mixed: list[list[list[int]]] = [[], []]
    for pair in zip(first, second, strict=True):
        for i, patch in enumerate(pair):
            mixed[i].append(both[i].see(patch).tokens.slot.tolist())
    assert mixed == apart


def test_a_new_size_or_a_loss_begins_anew() -> None:
    frames = [*shown(still(4, 64)), *(Frame(f.data, f.pts + 2, 0.5) for f in shown(still(4, 48)))]
    frames += [Frame(frames[-1].data, 30.0 + i / 2, 0.5, gap=26.0 if i == 0 else 0.0) for i in range(4)]
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames, prune="dtd") as stream:
        kept = {e.pts: len(e.kept) for e in _until_end(stream.events())}
    assert {t for t, n in kept.items() if n} == {0.0, 2.0, 30.0}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("dtdd", "unknown pruning method 'dtdd'; methods are gate, cacher, dtd"),
        ("dtd(taus=1)", "dtd has tau, by, against"),
        ("cap", "cap needs tokens"),
        ("cap(0)", "at least 1, got 0"),
        ("cap(x)", "wrong kind"),
        ("dtd*2", "looks like dtd"),
        ("dtd(tau=", "looks like dtd"),
        ("dtd(by=sound)", "by is pixels or features"),
    ],
)
def test_a_wrong_composition_is_told(spec: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("(", r"\(")):
        parse_prune(spec)


def test_words_and_records_are_the_same() -> None:
    records = (Dtd(tau=0.25, by="features"), Cap(96))
    assert parse_prune("dtd(tau=0.25, by=features)+cap(96)") == records
    assert parse_prune(format_prune(records)) == records


def test_the_recipe_of_contributing_adds_a_pruner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text().split("## Add a pruner")[1]
    (tmp_path / "pruner_recipe.py").write_text(section.split("```python")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    method = import_module("pruner_recipe").EverySecond
    assert parse_prune("every_second(true)", {"every_second": method}) == (method(odd_first=True),)
    events, stats, _ = run(noise(6), "llava_onevision", prune=(method(),))
    assert [e.kept for e in events[:2]] == [(0, 2, 4, 6, 8), (1, 3, 5, 7)]
    assert stats.saved.pruned == sum(9 - len(e.kept) for e in events)


def test_a_record_that_is_no_method_is_refused() -> None:
    with Agent(random_model("qwen3_vl")) as agent, pytest.raises(ValueError, match="records of methods"):
        agent.watch(iter(()), prune=(3,))


@pytest.mark.parametrize("spec", ["keynorm(0.5)", "dtd+infinipot(0.5)", "livevlm(0.5)", "resv(apart=20)"])
def test_what_leaves_the_window_is_stored_compressed_and_counted(tmp_path: Path, spec: str) -> None:
    model = random_model("qwen3_vl")
    with Agent(model) as agent:
        options = {"window_seconds": 4.0, "store": str(tmp_path / "store"), "store_pictures": 0}
        with agent.watch(shown(noise(40)), prune=spec, **options) as stream:
            stats = stream.wait(LONG)
            answer = stream.ask("what was it?", between=(2.0, 4.0), max_new_tokens=2)
            assert answer.text(LONG) is not None and answer.recalled
        with agent.resume(tmp_path / "store") as again:
            assert again.ask("what was it?", between=(2.0, 4.0), max_new_tokens=2).recalled is not None
    assert stats.saved.compressed > 0 and stats.tokens_stored > 0
    assert stats.tokens_seen == stats.tokens_window + stats.tokens_stored + stats.tokens_dropped
    assert stats.tokens_dropped == stats.saved.compressed
    with BlockStore.open(tmp_path / "store" / "blocks") as store:
        total = sum(entry.tokens for entry in store.blocks())  # the window followed when it was closed
    assert stats.tokens_stored < total < stats.tokens_stored + stats.tokens_window
