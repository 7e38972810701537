"""Frame rate and picture size by budget: what is shown is what a model would see, and every choice is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks
from families import FAMILIES, overlapping, random_model
from offline import official, token_rows
from perceiving import drained
from torch import Tensor
from torch.testing import assert_close
from typer.testing import CliRunner

from streamvlm import (
    Agent,
    FramePerceived,
    ModelConfig,
    RationChanged,
    StreamEnded,
    StreamStats,
    WatchConfig,
    load_model,
)
from streamvlm.cli.app import app
from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.rationing import Rationing, sizes_of, start_rationing
from streamvlm.engine.tower import Tower
from streamvlm.models.base import VisionLanguageModel
from streamvlm.types import Frame
from streamvlm.vision import normalise, patchify, resize, smart_resize

runner = CliRunner()


# what is shown


def film(seconds: Sequence[tuple[float, bool]], fps: float = 4.0, size: tuple[int, int] = (64, 96)) -> list[Frame]:
    """Noise, which changes with every frame in the stretches that say so."""
    generator = torch.Generator().manual_seed(5)
    frames: list[Frame] = []
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    for stretch, moves in seconds:
        for _ in range(round(stretch * fps)):
            if moves:
                picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
            frames.append(Frame(picture, len(frames) / fps, 1 / fps))
    return frames


def perceive(model: VisionLanguageModel, frames: Sequence[Frame], **options: Any) -> tuple[list[Block], Rationing]:
    rationing = start_rationing(model, WatchConfig(**options))
    assert rationing is not None
    eyes = Perceiver(frames, Tower(model), paced=False, queue_frames=4, on_block=lambda: None)
    eyes.rationing = rationing
    eyes.start()
    blocks = drained(eyes)
    assert eyes.blocks.error is None
    return blocks, rationing


def dynamic(family: str) -> VisionLanguageModel:
    """A random model whose pictures may be of many sizes, where the family has them."""
    model = copy(random_model(family))
    model.pixels = replace(model.pixels, max_pixels=32768)
    return model


MOVES_THEN_RESTS = [(8.0, True), (14.0, False), (10.0, True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_whose_size_changes_equals_the_official_forward_on_the_same_pictures(family: str) -> None:
    """Frames are looked up by their time in the source, resized as the events say, and given to the official model."""
    model, frames = dynamic(family), film([(5.0, True), (9.0, False)], fps=2.0, size=(90, 150))
    blocks, rationing = perceive(model, frames, fps=2.0, tokens_per_second=12.0)
    shapes = {b.tokens.grid for b in blocks}
    fixed = model.pixels.fixed_size is not None
    assert len(shapes) == 1 if fixed else len(shapes) > 1, "a fixed grid has one size: only the frame rate gives way"
    assert len({b.chosen.every for b in blocks if b.chosen}) > (0 if fixed else 1) and rationing.spared > 0
    driver = Driver(model)
    stream = driver.watch(blocks, policy="full", full_capacity_tokens=2048)
    answer = driver.ask(stream, "what colour is it?", at=blocks[-1].last_pts)
    driver.run()
    ours = driver.recordings[answer].logits[0]
    expected = official_forward(model, blocks, frames, "what colour is it?")
    assert expected.std() > 0.1
    assert_close(ours, expected, atol=2e-4, rtol=0)


@torch.inference_mode()
def official_forward(model: VisionLanguageModel, blocks: list[Block], frames: list[Frame], question: str) -> Tensor:
    """Logits of the last row of the question, each patch a video of its own size; positions are the official ones."""
    spec, pixels, grids, layouts = model.pixels, [], [], [model.prefix_layout()]
    for block, shown in zip(blocks, shown_in(blocks, frames), strict=True):
        size = (block.tokens.grid[0] * spec.factor, block.tokens.grid[1] * spec.factor)
        pictures = resize(torch.stack([f.data for f in shown[: spec.temporal]]), spec.fixed_size or size)
        pixels.append(normalise(pictures, spec))
        grids.append([1, size[0] // spec.patch, size[1] // spec.patch])
        layouts.append(model.frame_layout(block.tokens.grid, block.tokens.pts))
    layouts.append(model.question_layout(question))
    if model.family == "llava_onevision":
        videos = {"pixel_values_videos": torch.cat(pixels)[None]}
    else:
        videos = {"pixel_values_videos": torch.cat([patchify(p, spec) for p in pixels])}
        videos["video_grid_thw"] = torch.tensor(grids)
    logits: Tensor = official(model.family)(**token_rows(model, layouts), **videos).logits[0, -1]
    return logits


def shown_in(blocks: list[Block], frames: list[Frame]) -> Iterator[list[Frame]]:
    """The first and the last frame of every block, by their times in the source; a lone one is shown twice."""
    by_time = {f.pts: f for f in frames}
    for block in blocks:
        yield [by_time[pts] for pts in (block.tokens.pts, block.last_pts)]


def test_the_sizes_are_the_familys_own_for_fewer_and_fewer_pixels() -> None:
    model = dynamic("qwen3_vl")
    sizes = sizes_of(model, 90, 150)
    assert [s.tokens for s in sizes] == sorted({s.tokens for s in sizes}, reverse=True) and len(sizes) > 4
    assert (sizes[0].height, sizes[0].width) == (90, 150), "the first is the picture as it is"
    rules = {smart_resize(90, 150, replace(model.pixels, max_pixels=pixels)) for pixels in range(2048, 32769)}
    for size in sizes[1:]:
        assert (size.height, size.width) in rules
        assert model.pixels.target_size(size.height, size.width) == (size.height, size.width), "not resized again"


def test_a_model_of_one_size_has_one() -> None:
    assert len(sizes_of(random_model("llava_onevision"), 64, 96)) == 1
    one = copy(random_model("qwen3_vl"))
    one.pixels = replace(one.pixels, min_pixels=8192, max_pixels=8192)
    assert len(sizes_of(one, 64, 64)) == len(sizes_of(load_model(ModelConfig()), 192, 192)) == 1, (
        "the embedded model is such a one"
    )


def test_frames_are_spread_evenly_and_last_until_the_next() -> None:
    model = random_model("qwen3_vl")
    blocks, rationing = perceive(model, film([(30.0, False)]), fps=4.0, tokens_per_second=6.0)
    late = [b for b in blocks if b.tokens.pts > 12]
    assert {b.tokens.duration for b in late[:-1]} == {late[1].tokens.pts - late[0].tokens.pts}
    times = [b.last_pts for b in late[:-1]]
    assert len({round(b - a, 6) for a, b in pairwise(times)}) == 1
    assert sum(b.frames for b in blocks) + rationing.spared == 120, "every frame is shown or counted"


def test_what_follows_a_gap_is_shown_at_once() -> None:
    frames = film([(30.0, False)])
    frames[90] = replace(frames[90], gap=3.0)
    blocks, _ = perceive(random_model("qwen3_vl"), frames, fps=4.0, tokens_per_second=2.0)
    (after,) = [b for b in blocks if b.gap]
    assert after.tokens.pts == frames[90].pts and after.gap == 3.0


def test_patches_that_overlap_have_one_size_each() -> None:
    """The picture that a patch has in common with the one before is shown again in the patch's own size."""
    model, frames = overlapping(), film(MOVES_THEN_RESTS)
    blocks, _ = perceive(model, frames, fps=4.0, tokens_per_second=12.0)
    assert len({b.tokens.grid for b in blocks}) > 1
    by_time = {f.pts: f for f in frames}
    for before, block in pairwise(blocks):
        pair = torch.stack([by_time[before.last_pts].data, by_time[block.last_pts].data])
        size = tuple(side * model.pixels.factor for side in block.tokens.grid)
        (alone,) = model.encode(resize(pair, (size[0], size[1])), [(0.0, 1.0)])
        assert_close(block.tokens.embeds, alone.embeds)


# streams


def watched(model: VisionLanguageModel, frames: Sequence[Frame], **options: Any) -> tuple[list[Any], StreamStats, str]:
    """Its events, its counters, and an answer at the end."""
    with Agent(model) as agent, agent.watch(list(frames), fps=4.0, **options) as stream:
        events = []
        for event in stream.events():
            events.append(event)
            if isinstance(event, StreamEnded):
                break
        return events, stream.stats, stream.ask("what is it?", max_new_tokens=4).text()


def test_every_change_is_told_before_the_frame_it_is_true_of_and_counted() -> None:
    model, frames = random_model("qwen3_vl"), film(MOVES_THEN_RESTS)
    events, stats, _ = watched(model, frames, tokens_per_second=6.0)
    told = [e for e in events if isinstance(e, RationChanged)]
    assert len(told) == stats.rations == 3 and stats.frames + stats.frames_spared == len(frames)
    assert [e.moving for e in told] == [True, False, True]
    for event, after in pairwise(events):
        if isinstance(event, RationChanged):
            assert isinstance(after, FramePerceived) and after.pts >= event.pts
            assert after.grid[0] * after.grid[1] == event.tokens
            factor = model.pixels.factor
            assert after.grid == (event.height // factor, event.width // factor)
            assert event.rate <= event.budget == 6.0 and event.enough
    assert stats.frames_dropped == 0, "what is left out by choice is not lost"
    assert not [e for e in events if e.type in ("dropped", "gap")]


def test_without_a_budget_nothing_is_different() -> None:
    model, frames = random_model("qwen3_vl"), film(MOVES_THEN_RESTS)
    assert start_rationing(model, WatchConfig(fps=4.0)) is None
    plain = watched(model, frames)
    roomy = watched(model, frames, tokens_per_second=1e6)

    def seen(events: list[Any]) -> list[tuple[Any, ...]]:
        return [(e.pts, e.grid, e.kept, e.tokens, e.window_tokens) for e in events if isinstance(e, FramePerceived)]

    assert seen(plain[0]) == seen(roomy[0]) and plain[2] == roomy[2]
    assert (plain[1].rations, plain[1].frames_spared) == (0, 0) and not [e for e in plain[0] if e.type == "ration"]
    assert plain[1].tokens_seen == roomy[1].tokens_seen and roomy[1].frames_spared == 0


@pytest.mark.parametrize("policy", ["sink_window", "last_frames", "sliding", "sliding_recompute"])
def test_every_window_has_room_for_what_a_budget_shows(policy: str) -> None:
    model = random_model("qwen3_vl")
    with Agent(model) as agent, agent.watch(film(MOVES_THEN_RESTS), fps=4.0, policy=policy, tokens_per_second=6.0) as s:
        s.wait(60)
        assert s.check() == 0
        spans = [e for e in agent._engine.call(lambda: s._state.window.spans)]  # type: ignore[union-attr]
        if policy == "sink_window":
            assert min(start for start, _ in spans[1:]) <= 32 - 16 + 1, "the window is as long as was asked for"


def test_it_composes_with_pruning_and_the_pruners_are_reset_where_the_size_changes() -> None:
    model, frames = random_model("qwen3_vl"), film(MOVES_THEN_RESTS)
    events, stats, _ = watched(model, frames, tokens_per_second=6.0, prune="dtd(tau=0.04)+cap(5)")
    whole = [e for e in events if isinstance(e, FramePerceived)]
    assert stats.saved.pruned > 0 and all(len(e.kept) <= 5 for e in whole)


def test_the_command_line_tells_it_in_every_form(world_video: Path, model_folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    arguments = ["watch", str(world_video), "--model", str(model_folder), "--tokens-per-second", "2"]
    done = runner.invoke(app, [*arguments, "--json", "--trace", str(trace)])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told, end = [line for line in lines if line["event"] == "ration"], lines[-1]
    assert len(told) == end["rations"] > 0 and end["frames"] + end["frames_spared"] == 60 and end["frames_spared"] > 0
    assert {"pts", "fps", "height", "width", "tokens", "rate", "budget", "moving", "enough"} <= set(told[0])
    traced = [line for line in map(json.loads, trace.read_text().splitlines()) if line["what"] == "ration"]
    assert [line["pts"] for line in traced] == [line["pts"] for line in told]
    plain = runner.invoke(app, arguments).output
    assert "within 2 tokens a second: " in plain and f"{end['frames_spared']} left out for the budget" in plain


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--tokens-per-second", "0", "must be greater than 0 and finite, or None for no budget, got 0.0"),
        ("--max-utilisation", "2", "must be in (0, 1], got 2.0"),
        ("--least-fps", "-1", "must be greater than 0 and finite, got -1.0"),
    ],
)
def test_a_wrong_flag_is_named_with_what_is_allowed(world_video: Path, flag: str, value: str, message: str) -> None:
    done = runner.invoke(app, ["watch", str(world_video), "--model", "/nowhere", flag, value])
    assert done.exit_code == 2 and f"{flag}: " in done.output and message in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens_per_second": 0}, "tokens_per_second must be greater than 0 and finite, or None for no budget, got 0"),
        ({"tokens_per_second": float("inf")}, "tokens_per_second must be greater than 0 and finite"),
        ({"max_utilisation": 1.5}, r"max_utilisation must be in \(0, 1\], got 1.5"),
        ({"least_fps": 0}, "least_fps must be greater than 0 and finite, got 0"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WatchConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("paced", [True, False])
def test_the_load_of_live_streams_is_measured_and_a_file_has_none(paced: bool) -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 12), paced=paced)
    stream.play_until = 100.0
    driver.step()  # opens the window
    rationing = stream.rationing = start_rationing(model, WatchConfig(max_utilisation=0.5))
    assert rationing is not None and rationing.ration.load == 0
    driver.run()
    assert driver.engine.planner.costs.warm and stream.frames == 12
    assert rationing.ration.load > 0 if paced else rationing.ration.load == 0
