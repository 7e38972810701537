"""Who sees whom and from how far: dumped from the running engine, and read off a training batch.

Both become the same thing: for every row, the rows it sees, each with the difference of their three positions.
Rows are named by what they are: ("stream", n) is the n-th row the stream ever perceived, (question, n) the n-th row
of that question and its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from driver import Driver, Recording
from torch import Tensor

from streamvlm.engine.answer import Answer
from streamvlm.engine.perceiver import Block
from streamvlm.engine.step import Outcome, StreamWork, prepare_step
from streamvlm.models.attention import Backend
from streamvlm.models.base import VisionLanguageModel
from streamvlm.train.packing import STREAM

# Question, the block it is asked after, what is answered.
SCRIPT = (
    ("what colour is it?", 2, "red"), ("and then?", 5, "it left"), ("was there a red one?", 5, "yes"),
    ("now?", 7, "nothing"),
)  # fmt: skip
NAMES = [text for text, _, _ in SCRIPT]
Row = tuple[str, int]
Sight = dict[Row, tuple[int, int, int]]  # what is seen, and how far before the row it stands: t, h, w


@dataclass
class Witness:
    """Notes, at every step of an engine with one stream, what each new row sees."""

    seen: dict[Row, Sight] = field(default_factory=dict)
    ids: dict[int, Row] = field(default_factory=dict)  # the cache's number of a row, which moves keep
    counts: dict[str, int] = field(default_factory=dict)

    def prepare(
        self, works: Sequence[StreamWork], model: VisionLanguageModel, backend: Backend
    ) -> Callable[[], Outcome]:
        """Stands between the engine and its step."""
        for work in works:
            self._note(work)
        return prepare_step(works, model, backend)

    def _note(self, work: StreamWork) -> None:
        cache = work.window.cache
        parts = [] if work.perception is None else [("stream", rows) for _, rows in work.perception.placed]
        parts += [(turn.reader.answer.question, turn.rows) for turn in work.turns]
        for name, rows in parts:
            for number in rows.order.tolist():
                self.ids[number] = (name, self.counts.setdefault(name, 0))
                self.counts[name] += 1
        for _, rows in parts:
            visible = cache.visible(rows, cache.extent)
            for number, position, mask in zip(rows.order.tolist(), rows.positions, visible, strict=True):
                slots = mask.nonzero().squeeze(1)
                self.seen[self.ids[number]] = self._sight(cache, position, slots)

    def _sight(self, cache: Any, position: Tensor, slots: Tensor) -> Sight:
        sight: Sight = {}
        for slot in slots.tolist():
            t, h, w = (position - cache.position[slot]).tolist()
            row = self.ids[int(cache.order[slot])]
            assert row not in sight, f"{row} is seen twice"
            sight[row] = (t, h, w)
        return sight


def batch_sight(
    mask: Tensor, positions: Tensor, block: Tensor, questions: Sequence[str], kept: Sequence[int]
) -> dict[Row, Sight]:
    """The same of one stretch of a training batch.

    Args:
        mask: bool [n, n] which row sees which.
        positions: int64 [n, 3].
        block: int64 [n] STREAM, or the number of the question, from 1.
        kept: the stream's rows that it holds, by number.
    """
    names: list[Row] = []
    counts: dict[int, int] = {}
    for one in block.tolist():
        number = counts.setdefault(one, 0)
        counts[one] += 1
        names.append(("stream", kept[number]) if one == STREAM else (questions[one - 1], number))
    seen: dict[Row, Sight] = {}
    for index, name in enumerate(names):
        sight: Sight = {}
        for other in mask[index].nonzero().squeeze(1).tolist():
            t, h, w = (positions[index] - positions[other]).tolist()
            sight[names[other]] = (t, h, w)
        seen[name] = sight
    return seen


class Scripted:
    """A sampler that writes what it is given, whatever the logits."""

    def __init__(self, tokens: list[int]) -> None:
        self._rest = iter(tokens)

    def __call__(self, logits: Tensor) -> int:
        return next(self._rest)


class Script(dict[Answer, Recording]):
    """The driver's recordings, each made to write its answer from the script."""

    def __init__(self, model: VisionLanguageModel, script: Sequence[tuple[str, int, str]] = SCRIPT) -> None:
        super().__init__()
        self._model, self._script = model, script

    def __setitem__(self, answer: Answer, recording: Recording) -> None:
        text = next(said for asked, _, said in self._script if asked == answer.question)
        recording.inner = Scripted(self._model.answer_layout(text).ids.tolist())
        super().__setitem__(answer, recording)


@dataclass
class Streamed:
    """A stream that was watched and asked, and what the engine's rows saw."""

    model: VisionLanguageModel
    blocks: list[Block]
    witness: Witness
    logits: dict[str, Tensor]  # by question [written tokens, vocabulary]


def stream(model: VisionLanguageModel, blocks: list[Block], **options: Any) -> Streamed:
    driver, witness = Driver(model), Witness()
    driver.recordings = Script(model)
    driver.engine._prepare = witness.prepare
    watched = driver.watch(blocks, ended=True, max_answer_tokens=20, **options)
    answers = [driver.ask(watched, text, blocks[at].last_pts) for text, at, _ in SCRIPT]
    driver.run()
    assert [answer.text() for answer in answers] == [said for _, _, said in SCRIPT]
    logits = {a.question: torch.stack(driver.recordings[a].logits) for a in answers}
    return Streamed(model, blocks, witness, logits)
