"""Training and inference are the same: who sees whom, from how far, and what comes out; and nobody sees the future."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks
from families import FAMILIES, random_model
from sight import Row, Sight, Witness, batch_sight
from torch import Tensor
from torch.testing import assert_close

from streamvlm.engine.answer import Answer
from streamvlm.engine.perceiver import Block
from streamvlm.models.base import VisionLanguageModel
from streamvlm.train.collate import Asked, Collator, StreamBatch, StreamRows, Weights, lay_out
from streamvlm.train.conversations import Chunk, Conversation, Turn
from streamvlm.train.packing import PADDING, visibility
from streamvlm.train.tuner import Tuner
from streamvlm.train.viewing import View
from streamvlm.vision import resize

QUESTIONS = (("what colour is it?", 2), ("and then?", 5), ("was there a red one?", 5), ("now?", 7))  # after that block
WINDOW = 2.0  # seconds; the streams below are longer


@dataclass
class Streamed:
    """A stream that was watched and asked, and what the engine's rows saw."""

    model: VisionLanguageModel
    blocks: list[Block]
    witness: Witness
    answers: list[Answer]
    logits: dict[str, Tensor]  # by question [written tokens, vocabulary]
    written: dict[str, list[int]]  # by question, the tokens chosen


def stream(family: str, blocks: int = 8, **options: Any) -> Streamed:
    model = random_model(family)
    shown = random_blocks(model, blocks)
    driver, witness = Driver(model), Witness()
    driver.engine._run_step = witness.step
    watched = driver.watch(shown, ended=True, max_answer_tokens=6, **options)
    answers = [driver.ask(watched, text, shown[min(at, blocks - 1)].last_pts) for text, at in QUESTIONS]
    driver.run()
    logits = {a.question: torch.stack(driver.recordings[a].logits) for a in answers}
    written = {name: rows.argmax(-1).tolist() for name, rows in logits.items()}
    return Streamed(model, shown, witness, answers, logits, written)


def trained_rows(streamed: Streamed, blocks: list[Block], questions: tuple[tuple[str, int], ...]) -> StreamRows:
    """What the collator makes of some blocks of the stream; a question's number counts among them."""
    model = streamed.model
    asked = []
    for text, at in questions:
        tokens = torch.tensor(streamed.written[text])
        asked.append(Asked(at + 1, model.question_layout(text), tokens, torch.ones(len(tokens))))
    return lay_out(model, blocks[0].tokens.grid, [b.tokens.pts for b in blocks], asked)


def written_rows(sight: dict[Row, Sight], streamed: Streamed) -> dict[Row, Sight]:
    """Without the last token of every answer, which the engine has no need to read."""
    longest = {name: n for name, n in streamed.witness.counts.items()}
    return {row: seen for row, seen in sight.items() if row[1] < longest[row[0]] or row[0] == "stream"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_sees_the_same_rows_from_the_same_distance(family: str) -> None:
    """The whole stream, four questions with their answers, each asked in the middle of it or at its end."""
    streamed = stream(family)
    rows = trained_rows(streamed, streamed.blocks, QUESTIONS)
    total = streamed.witness.counts["stream"]
    collated = batch_sight(rows, [text for text, _ in QUESTIONS], range(total))
    assert written_rows(collated, streamed) == streamed.witness.seen
    assert len(streamed.witness.seen) > total + 40


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chunk_is_what_a_question_sees_once_the_window_has_moved(
    family: str,
) -> None:
    """The first frame and a window somewhere later: the sinks have moved, what lay between is gone."""
    streamed = stream(family, blocks=16, window_seconds=WINDOW)
    model, text = streamed.model, QUESTIONS[-1][0]
    at = QUESTIONS[-1][1]
    sizes = [len(model.prefix_layout()), *(len(model.frame_segment(b.tokens)) for b in streamed.blocks)]
    starts = [0, *accumulate(sizes)]
    now = streamed.blocks[at].tokens.pts + streamed.blocks[at].tokens.duration
    inside = [
        i
        for i in range(1, at + 1)
        if streamed.blocks[i].tokens.pts + streamed.blocks[i].tokens.duration > now - WINDOW + 1e-6
    ]
    kept = [0, *inside]
    assert len(kept) < at + 1, "something was to leave the window"
    numbers = [*range(sizes[0]), *(n for i in kept for n in range(starts[i + 1], starts[i + 2]))]
    rows = trained_rows(streamed, [streamed.blocks[i] for i in kept], ((text, len(kept) - 1),))
    collated = written_rows(batch_sight(rows, [text], numbers), streamed)
    engine = {row: seen for row, seen in streamed.witness.seen.items() if row[0] == text}
    assert {row: seen for row, seen in collated.items() if row[0] == text} == engine
    # The stream's own rows saw what is in the chunk, and before it what has left since.
    inner = {("stream", n) for n in numbers}
    for row in sorted(inner):
        before = {r: d for r, d in streamed.witness.seen[row].items() if r in inner}
        assert before.keys() == collated[row].keys(), row


@pytest.mark.parametrize("change", ["later", "sees_less", "sees_more", "stream_position", "window", "prefix"])
def test_the_comparison_notices_a_change_of_either_side(change: str) -> None:
    options: dict[str, Any] = {"policy": "last_frames", "last_frames": 4} if change == "window" else {}
    streamed = stream("qwen3_vl", **options)
    questions = QUESTIONS
    if change in ("sees_less", "sees_more"):
        questions = ((QUESTIONS[0][0], 1 if change == "sees_less" else 3), *QUESTIONS[1:])
    rows = trained_rows(streamed, streamed.blocks, questions)
    if change == "later":
        rows = replace(rows, positions=rows.positions + (rows.block == 2).long().unsqueeze(1))
    if change == "stream_position":
        rows = replace(rows, positions=rows.positions + (rows.moment == 3).long().unsqueeze(1))
    if change == "prefix":
        keep = torch.arange(len(rows.ids)) > 0
        rows = StreamRows(*(getattr(rows, name)[keep] for name in StreamRows.__slots__))
    names = [text for text, _ in QUESTIONS]
    collated = batch_sight(rows, names, range(streamed.witness.counts["stream"] + 99))
    assert written_rows(collated, streamed) != streamed.witness.seen


def pixels(model: VisionLanguageModel, patches: int, seed: int = 0) -> Tensor:
    """The frames of `random_blocks`, before they are encoded."""
    generator = torch.Generator().manual_seed(seed)
    shape = (model.pixels.temporal, 3, 32, 48)
    return torch.cat([torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(patches)])


def training_batch(streamed: Streamed, frames: Tensor) -> StreamBatch:
    """One chunk over all of the stream, through the collator, with the answers the engine gave as targets."""
    model, blocks = streamed.model, streamed.blocks
    view = View(
        resize(frames, model.pixels.target_size(*frames.shape[2:])),
        blocks[0].tokens.grid,
        tuple(b.tokens.pts for b in blocks),
        tuple(b.last_pts for b in blocks),
    )
    turns = tuple(Turn(blocks[at].last_pts, text, "-", "answer") for text, at in QUESTIONS)
    chunk = Chunk(Conversation(Path("stream.mp4"), turns, 0.0, "test:1"), 0.0, turns[-1].time, turns)
    collator = Collator(model, Weights())
    batch = collator.batch([chunk], [view])
    rows = trained_rows(streamed, blocks, QUESTIONS)
    # The same batch but with what the engine wrote, which need not be text that can be tokenised back.
    assert torch.equal(batch.ids[0][batch.block[0] == 0], rows.ids[rows.block == 0])
    block, moment = rows.block[None], rows.moment[None]
    return replace(
        batch, ids=rows.ids[None], positions=rows.positions[None], visual=rows.visual[None], block=block,
        mask=visibility(block, moment).unsqueeze(1), targets=rows.targets[None], weights=rows.weights[None],
    )  # fmt: skip


def answers(model: VisionLanguageModel, batch: StreamBatch) -> dict[str, Tensor]:
    """Logits [written tokens, vocabulary] of every question of a batch."""
    with torch.no_grad():
        hidden = Tuner(model, vision=False).eval().hidden(batch)
    found = {}
    for number, (text, _) in enumerate(QUESTIONS, start=1):
        mine = (batch.block[0] == number) & (batch.targets[0] != PADDING)
        found[text] = model.logits(hidden[0, mine])
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_come_out(family: str) -> None:
    """What the engine computed in forty packed steps, the learner computes in one pass, vision tower included."""
    streamed = stream(family)
    batch = training_batch(streamed, pixels(streamed.model, len(streamed.blocks)))
    for text, logits in answers(streamed.model, batch).items():
        assert_close(logits, streamed.logits[text], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_a_changed_frame_changes_later_answers_only(family: str) -> None:
    streamed = stream(family)
    frames = pixels(streamed.model, len(streamed.blocks))
    before = answers(streamed.model, training_batch(streamed, frames))
    for patch in range(len(streamed.blocks)):
        t = streamed.model.pixels.temporal
        changed = frames.clone()
        changed[patch * t : (patch + 1) * t] = 255 - changed[patch * t : (patch + 1) * t]
        after = answers(streamed.model, training_batch(streamed, changed))
        for text, at in QUESTIONS:
            if patch > at:
                assert_close(after[text], before[text], atol=1e-5, rtol=1e-5)
            else:
                assert not torch.allclose(after[text], before[text], atol=1e-4), (patch, text)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_inference_a_changed_frame_changes_later_answers_only(family: str) -> None:
    """The first logits of every answer, asked while the stream goes on."""
    model = random_model(family)
    blocks, others = random_blocks(model, 8), random_blocks(model, 8, seed=1)

    def first_logits(shown: list[Block]) -> dict[str, Tensor]:
        driver = Driver(model)
        watched = driver.watch(shown, ended=True, max_answer_tokens=3)
        asked = [driver.ask(watched, text, shown[at].last_pts) for text, at in QUESTIONS]
        driver.run()
        return {a.question: driver.recordings[a].logits[0] for a in asked}

    before = first_logits(blocks)
    for patch in range(8):
        after = first_logits([*blocks[:patch], others[patch], *blocks[patch + 1 :]])
        for text, at in QUESTIONS:
            if patch > at:
                assert_close(after[text], before[text], atol=1e-5, rtol=1e-5)
            else:
                assert not torch.allclose(after[text], before[text], atol=1e-4), (patch, text)


def test_a_question_in_training_changes_no_other() -> None:
    """Nor what is perceived: the logits of one question are the same without the others."""
    streamed = stream("qwen3_vl")
    batch = training_batch(streamed, pixels(streamed.model, len(streamed.blocks)))
    whole = answers(streamed.model, batch)
    alone = (batch.block[0] == 0) | (batch.block[0] == 3)
    parts = {
        name: getattr(batch, name)[:, alone] for name in ("ids", "positions", "visual", "block", "targets", "weights")
    }
    part = replace(batch, **parts, mask=batch.mask[:, :, alone][..., alone])
    assert_close(answers(streamed.model, part)[QUESTIONS[2][0]], whole[QUESTIONS[2][0]], atol=1e-5, rtol=1e-5)
