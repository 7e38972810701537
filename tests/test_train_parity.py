"""Training and inference are the same: who sees whom, from how far, and what comes out; and nobody sees the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import random_blocks
from families import FAMILIES, random_model
from sight import NAMES, SCRIPT, Row, Sight, Streamed, batch_sight, stream
from torch import Tensor
from torch.testing import assert_close

from streamvlm.engine.perceiver import Block
from streamvlm.models.base import VisionLanguageModel
from streamvlm.train.collate import Collator, StreamBatch, Weights
from streamvlm.train.conversations import Chunk, Conversation, Turn
from streamvlm.train.packing import PADDING
from streamvlm.train.tuner import Tuner
from streamvlm.train.viewing import View
from streamvlm.vision import resize

WINDOW = 2.0  # seconds; the streams below are longer


def pixels(model: VisionLanguageModel, patches: int, seed: int = 0) -> Tensor:
    """The frames of `random_blocks`, before they are encoded."""
    generator = torch.Generator().manual_seed(seed)
    shape = (model.pixels.temporal, 3, 32, 48)
    return torch.cat([torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(patches)])


def collate(
    model: VisionLanguageModel, blocks: Sequence[Block], frames: Tensor, script: Sequence[tuple[str, int, str]] = SCRIPT
) -> StreamBatch:
    """One chunk of some blocks, as it is trained on."""
    shown = resize(frames, model.pixels.target_size(*frames.shape[2:]))
    starts, stops = tuple(b.tokens.pts for b in blocks), tuple(b.last_pts for b in blocks)
    turns = tuple(Turn(blocks[at].last_pts, text, said, "answer") for text, at, said in script)
    chunk = Chunk(Conversation(Path("stream.mp4"), turns, 0.0, "test:1"), 0.0, turns[-1].time, turns)
    return Collator(model, Weights()).batch([chunk], [View(shown, blocks[0].tokens.grid, starts, stops)])


def trained_sight(
    batch: StreamBatch, streamed: Streamed, kept: Sequence[int] | None = None, names: Sequence[str] = NAMES
) -> dict[Row, Sight]:
    """What the rows of a training batch see, without the last token of each answer, which inference never reads."""
    counts = streamed.witness.counts
    numbers = range(counts["stream"]) if kept is None else kept
    seen = batch_sight(batch.mask[0, 0], batch.positions[0], batch.block[0], names, numbers)
    return {row: sight for row, sight in seen.items() if row[1] < counts[row[0]]}


def random_stream(family: str, blocks: int = 8, **options: Any) -> Streamed:
    model = random_model(family)
    return stream(model, random_blocks(model, blocks), **options)


def whole_batch(streamed: Streamed, frames: Tensor | None = None) -> StreamBatch:
    """All of the stream as one chunk."""
    shown = pixels(streamed.model, len(streamed.blocks)) if frames is None else frames
    return collate(streamed.model, streamed.blocks, shown)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_sees_the_same_rows_from_the_same_distance(family: str) -> None:
    """The whole stream, four questions with their answers, each asked in the middle of it or at its end."""
    streamed = random_stream(family)
    assert trained_sight(whole_batch(streamed), streamed) == streamed.witness.seen
    assert len(streamed.witness.seen) > streamed.witness.counts["stream"] + 40


def rows_of(streamed: Streamed) -> list[range]:
    """The stream's row numbers: of the prefix, then of every block."""
    model = streamed.model
    sizes = [len(model.prefix_layout()), *(len(model.frame_segment(b.tokens)) for b in streamed.blocks)]
    stops = list(accumulate(sizes))
    return [range(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chunk_is_what_a_question_sees_once_the_window_has_moved(family: str) -> None:
    """The first frame and a window somewhere later: the sinks have moved, what lay between is gone."""
    streamed = random_stream(family, blocks=12, window_seconds=WINDOW)
    text, at, said = SCRIPT[-1]
    ends = [b.tokens.pts + b.tokens.duration for b in streamed.blocks]
    kept = [0, *(i for i in range(1, at + 1) if ends[i] > ends[at] - WINDOW + 1e-6)]
    assert 3 <= len(kept) <= at - 1, "much was to leave the window, and not all"
    rows = rows_of(streamed)
    numbers = [*rows[0], *(n for i in kept for n in rows[i + 1])]
    t = streamed.model.pixels.temporal
    frames = pixels(streamed.model, 12).view(12, t, 3, 32, 48)[kept].flatten(0, 1)
    batch = collate(streamed.model, [streamed.blocks[i] for i in kept], frames, [(text, len(kept) - 1, said)])
    trained = trained_sight(batch, streamed, numbers, [text])
    mine = {row: sight for row, sight in streamed.witness.seen.items() if row[0] == text}
    assert mine and {row: sight for row, sight in trained.items() if row[0] == text} == mine
    # The stream's own rows saw what is in the chunk, and before it what has left since.
    inner = {("stream", n) for n in numbers}
    for row in inner:
        assert streamed.witness.seen[row].keys() & inner == trained[row].keys(), row


@pytest.mark.parametrize(
    "change", ["question_later", "sees_less", "sees_more", "frame_later", "mask", "window", "text"]
)
def test_the_comparison_notices_a_change_of_either_side(change: str) -> None:
    window: dict[str, Any] = {"policy": "last_frames", "last_frames": 4} if change == "window" else {}
    streamed = random_stream("qwen3_vl", **window)
    batch = whole_batch(streamed)
    if change in ("sees_less", "sees_more", "text"):
        moved = {"sees_less": (NAMES[0], 1, "red"), "sees_more": (NAMES[0], 3, "red"), "text": ("what?", 2, "red")}
        script = [moved[change], *SCRIPT[1:]]
        batch = collate(streamed.model, streamed.blocks, pixels(streamed.model, 8), script)
    later = {"question_later": batch.block == 2, "frame_later": torch.arange(batch.ids.shape[1])[None] > 60}
    if change in later:
        batch = replace(batch, positions=batch.positions + later[change].unsqueeze(-1))
    if change == "mask":
        batch.mask[0, 0, -1, 5] = False
        batch.mask[0, 0, -2, 5] = False
    assert trained_sight(batch, streamed) != streamed.witness.seen


def answers(model: VisionLanguageModel, batch: StreamBatch) -> dict[str, Tensor]:
    """Logits [written tokens, vocabulary] of every question of a batch."""
    with torch.no_grad():
        hidden = Tuner(model, vision=False).eval().hidden(batch)
    found = {}
    for number, text in enumerate(NAMES, start=1):
        mine = (batch.block[0] == number) & (batch.targets[0] != PADDING)
        found[text] = model.logits(hidden[0, mine])
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_come_out(family: str) -> None:
    """What the engine computed in dozens of packed steps the learner computes in one pass, vision tower included."""
    streamed = random_stream(family)
    for text, logits in answers(streamed.model, whole_batch(streamed)).items():
        assert_close(logits, streamed.logits[text], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_a_changed_frame_changes_later_answers_only(family: str) -> None:
    model = random_model(family)
    blocks, frames, t = random_blocks(model, 8), pixels(model, 8), model.pixels.temporal
    before = answers(model, collate(model, blocks, frames))
    for patch in range(8):
        changed = frames.clone()
        changed[patch * t : (patch + 1) * t] = 255 - changed[patch * t : (patch + 1) * t]
        assert_only_later_answers_change(answers(model, collate(model, blocks, changed)), before, patch)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_inference_a_changed_frame_changes_later_answers_only(family: str) -> None:
    """All logits of every answer, asked while the stream goes on."""
    model = random_model(family)
    blocks, others = random_blocks(model, 8), random_blocks(model, 8, seed=1)
    before = stream(model, blocks).logits
    for patch in (1, 3, 6):
        after = stream(model, [*blocks[:patch], others[patch], *blocks[patch + 1 :]]).logits
        assert_only_later_answers_change(after, before, patch)


def assert_only_later_answers_change(after: dict[str, Tensor], before: dict[str, Tensor], patch: int) -> None:
    for text, at, _ in SCRIPT:
        if patch > at:
            assert_close(after[text], before[text], atol=1e-5, rtol=1e-5)
        else:
            assert not torch.allclose(after[text], before[text], atol=1e-4), (patch, text)


def test_questions_of_a_batch_do_not_change_each_other() -> None:
    model = random_model("qwen3_vl")
    blocks, frames = random_blocks(model, 8), pixels(model, 8)
    whole = answers(model, collate(model, blocks, frames))
    other = [("is it warm in there?", 1, "no idea at all"), *SCRIPT[1:]]
    changed = answers(model, collate(model, blocks, frames, other))
    for text in NAMES[1:]:
        assert_close(changed[text], whole[text], atol=1e-5, rtol=1e-5)
