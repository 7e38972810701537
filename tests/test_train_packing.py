"""The embedded model is trained on what it will see: its packing against the running engine and a recalling window."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from driver import random_blocks
from sight import NAMES, SCRIPT, batch_sight, stream
from test_twin import make_window, perceive
from torch import Tensor
from training import MICRO

from streamvlm.memory.blocks import BlockRun, KVBlock
from streamvlm.memory.leaving import Leaving
from streamvlm.memory.policies import SinkWindow
from streamvlm.memory.recalling import recall
from streamvlm.models.base import VisionLanguageModel
from streamvlm.models.loading import load_model
from streamvlm.settings import ModelConfig
from streamvlm.train.architecture import export, new_model
from streamvlm.train.episodes import Asked, Episode
from streamvlm.train.packing import LIVE, Packer
from streamvlm.train.shots import Shot
from streamvlm.types import Kind
from streamvlm.world.questions import Question

WINDOW = 2.0  # seconds


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    """A small random model with the embedded one's tokenizer and pictures."""
    folder = tmp_path_factory.mktemp("embedded")
    export(new_model(MICRO, 0, folder), folder)
    return load_model(ModelConfig(model=str(folder), device="cpu"))


def test_the_embedded_model_is_packed_as_the_engine_will_show_it(embedded: VisionLanguageModel) -> None:
    """The same comparison for the curriculum's own packing."""
    streamed = stream(embedded, random_blocks(embedded, 8, size=(64, 64)))
    shots = tuple(Shot(0, i, block.tokens.pts, max(0, i - 1)) for i, block in enumerate(streamed.blocks))
    asked = tuple(Asked(at, Question("color", text, said)) for text, at, said in SCRIPT)
    batch = Packer(embedded).batch([Episode(False, shots, 0, asked)])
    seen = batch_sight(batch.mask[0, 0], batch.positions[0], batch.block[0], NAMES, range(10_000))
    counts = streamed.witness.counts
    assert {row: sight for row, sight in seen.items() if row[1] < counts[row[0]]} == streamed.witness.seen


@torch.inference_mode()
def test_a_question_sees_what_is_brought_back_from_where_it_was_trained_to(embedded: VisionLanguageModel) -> None:
    """Sinks moved back, recalled blocks, window: every distance from every row of the question."""
    text, blocks = "what colour is it?", random_blocks(embedded, 12, size=(64, 64))
    left: list[KVBlock] = []
    window = make_window(embedded, rebase_at=8192)
    window.policy = SinkWindow(seconds=WINDOW)

    def keep(leaving: Leaving) -> bool:
        left.append(leaving.block())
        return True

    window.on_evict = keep
    for i, block in enumerate(blocks):
        prefix = [] if i else [embedded.text_segment(embedded.prefix_layout(), Kind.SINK)]
        perceive(embedded, window, [*prefix, embedded.frame_segment(block.tokens)])
    reader, question = window.open_reader(), embedded.question_layout(text)
    recall(window, reader, [BlockRun.of(left[2:4])])
    rows, cache = window.cache.place_private(reader, question.positions, question.extent), window.cache
    visible = cache.visible(rows, cache.extent)
    inference = [distances(p, cache.position[: len(m)][m]) for p, m in zip(rows.positions, visible, strict=True)]

    frames = [0, *(round(b.start * 2) for b in left[2:4]), *range(8, 12)]
    shots = tuple(Shot(0, frame, blocks[frame].tokens.pts, max(0, frame - 1)) for frame in frames)
    asked = Asked(len(frames) - 1, Question("color", text, "red"))
    batch = Packer(embedded).batch([Episode(False, shots, 2, (asked,))])
    positions, mask = batch.positions[0], batch.mask[0, 0]
    mine = (batch.block[0] == 1).nonzero().squeeze(1)[: len(question)]
    assert [distances(positions[i], positions[mask[i]]) for i in mine] == inference

    # With the past in which they were seen, the question sees the same, and they see what they saw then.
    past = tuple(Shot(0, frame, blocks[frame].tokens.pts, max(0, frame - 1)) for frame in (0, 1))
    longer = Episode(False, (shots[0], *past, *shots[1:]), 2, (replace(asked, shot=asked.shot + 2),), past=2)
    packed = Packer(embedded).batch([longer])
    positions, mask = packed.positions[0], packed.mask[0, 0]
    mine = (packed.block[0] == 1).nonzero().squeeze(1)[: len(question)]
    assert [distances(positions[i], positions[mask[i]]) for i in mine] == inference
    live = Packer(embedded).batch([Episode(False, (*past, *shots[1:3]), 0, ())])
    then = [distances(p, live.positions[0][m]) for p, m in zip(live.positions[0], live.mask[0, 0], strict=True)]
    old = (Packer(embedded).rows(longer).origin != LIVE).nonzero().squeeze(1)
    assert [distances(positions[i], positions[mask[i]]) for i in old] == then
    assert not mask[int(old[-1]) + 1 : int(mine[0]), old].any(), "the window sees neither"


def distances(position: Tensor, others: Tensor) -> list[list[int]]:
    """How far each of `others` stands before a position, on the three axes, in any order."""
    return sorted((position - others).tolist())
