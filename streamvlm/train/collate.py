"""Chunks of a stream become padded tensors whose positions and visibility are those of streaming inference.

Everything comes from the adapter's own layouts, so it is the same code for every family. The stream's rows see the
stream before them; a question's rows see the stream up to its moment and themselves; the stream sees no question and
questions do not see each other: what `SlotCache` lets rows see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from streamvlm.models.base import Layout, VisionLanguageModel
from streamvlm.train.conversations import Chunk, Turn
from streamvlm.train.packing import PADDING, STREAM, visibility
from streamvlm.train.viewing import View

PREFIX = -1  # the moment of the rows before the first patch


@dataclass(frozen=True, slots=True)
class Weights:
    """How much the tokens of a decision to speak or to stay silent count; 1 is an ordinary token."""

    speak: float = 1.0
    silent: float = 1.0

    @classmethod
    def balanced(cls, speak: int, silent: int, most: float = 20.0) -> Weights:
        """Both decisions weigh the same in all, however rare one is (ThinkStream's balance, arXiv 2603.12938)."""
        total = speak + silent
        if not speak or not silent:
            return cls()
        return cls(min(most, total / (2 * speak)), min(most, total / (2 * silent)))

    def of(self, turn: Turn, tokens: int) -> Tensor:
        """float32 [tokens] for the tokens of a turn's answer: the first one is the decision."""
        weights = torch.ones(tokens)
        if turn.manner == "speak":
            weights[0] = self.speak
        elif turn.manner == "silent":
            weights[:] = self.silent
        return weights


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question in a stretch of stream."""

    seen: int  # patches it sees
    question: Layout
    answer: Tensor  # int64 [n] what is to be written, with the token that ends it
    weights: Tensor  # float32 [n]


@dataclass(frozen=True, slots=True, eq=False)
class StreamRows:
    """The rows of one stretch of stream with its questions."""

    ids: Tensor  # int64 [n]
    positions: Tensor  # int64 [n, 3]
    visual: Tensor  # bool [n]
    block: Tensor  # int64 [n] STREAM, or the number of the question, from 1
    moment: Tensor  # int64 [n] the patch a row belongs to, PREFIX before the first; of a question, the last it sees
    targets: Tensor  # int64 [n] the token to predict, PADDING where none is learnt
    weights: Tensor  # float32 [n] of the row's loss


@dataclass(frozen=True, slots=True, eq=False)
class StreamBatch:
    """Stretches side by side, padded to the longest; padding sees and is seen by padding only."""

    ids: Tensor  # int64 [b, n]
    positions: Tensor  # int64 [b, n, 3]
    visual: Tensor  # bool [b, n]
    mask: Tensor  # bool [b, 1, n, n] which row (third axis) sees which (fourth)
    targets: Tensor  # int64 [b, n]
    weights: Tensor  # float32 [b, n]
    block: Tensor  # int64 [b, n]
    frames: tuple[Tensor, ...]  # per stretch uint8 [patches·t, 3, h, w], resized for the model
    manners: tuple[tuple[str, ...], ...]  # per stretch, the manner of every question

    def to(self, device: torch.device) -> StreamBatch:
        """The batch on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)}
        return StreamBatch(**{**moved, **tensors, "frames": tuple(f.to(device) for f in self.frames)})


def lay_out(
    model: VisionLanguageModel, grid: tuple[int, int], starts: Sequence[float], asked: Sequence[Asked]
) -> StreamRows:
    """The stream first, then every question at the position its last patch had reached.

    Args:
        grid: tokens of a patch (rows, columns).
        starts: seconds, of each patch's first frame.
    """
    prefix = model.prefix_layout()
    parts, cursor, ends = [_stream_rows(prefix, 0, PREFIX)], prefix.extent, []
    for index, pts in enumerate(starts):
        layout = model.frame_layout(grid, pts)
        parts.append(_stream_rows(layout, cursor, index))
        cursor += layout.extent
        ends.append(cursor)
    for number, one in enumerate(asked, start=1):
        parts.append(_question_rows(one, number, ends[one.seen - 1]))
    return StreamRows(*(torch.cat([getattr(p, name) for p in parts]) for name in StreamRows.__slots__))


def _stream_rows(layout: Layout, cursor: int, moment: int) -> StreamRows:
    same = torch.ones_like(layout.ids)
    positions, targets = layout.positions + cursor, same * PADDING
    return StreamRows(
        layout.ids, positions, layout.visual, same * STREAM, same * moment, targets, torch.zeros(len(same))
    )


def _question_rows(asked: Asked, number: int, cursor: int) -> StreamRows:
    question, answer = asked.question, asked.answer
    ids = torch.cat((question.ids, answer))
    written = torch.arange(len(answer)).unsqueeze(1).expand(-1, 3) + question.extent
    positions = torch.cat((question.positions, written)) + cursor
    targets, weights = torch.full((len(ids),), PADDING), torch.zeros(len(ids))
    targets[len(question) - 1 : -1] = answer  # each row predicts the next one
    weights[len(question) - 1 : -1] = asked.weights
    same = torch.ones_like(ids)
    return StreamRows(ids, positions, same < 0, same * number, same * (asked.seen - 1), targets, weights)


class Collator:
    """Builds batches for one model."""

    def __init__(self, model: VisionLanguageModel, weights: Weights) -> None:
        self._model = model
        self._weights = weights

    def batch(self, chunks: Sequence[Chunk], views: Sequence[View]) -> StreamBatch:
        """Chunks with what is seen of them."""
        rows = [self.rows(chunk, seen) for chunk, seen in zip(chunks, views, strict=True)]

        def padded(name: str, value: float) -> Tensor:
            return pad_sequence([getattr(r, name) for r in rows], batch_first=True, padding_value=value)

        block, moment = padded("block", PADDING), padded("moment", PADDING)
        return StreamBatch(
            ids=padded("ids", 0),
            positions=padded("positions", 0),
            visual=padded("visual", 0),
            mask=visibility(block, moment).unsqueeze(1),
            targets=padded("targets", PADDING),
            weights=padded("weights", 0),
            block=block,
            frames=tuple(seen.frames for seen in views),
            manners=tuple(tuple(turn.manner for turn in chunk.turns) for chunk in chunks),
        )

    def rows(self, chunk: Chunk, seen: View) -> StreamRows:
        """The rows of one chunk."""
        asked = [self._asked(turn, seen) for turn in chunk.turns]
        return lay_out(self._model, seen.grid, seen.starts, asked)

    def _asked(self, turn: Turn, seen: View) -> Asked:
        answer = self._model.answer_layout(turn.answer).ids
        weights = self._weights.of(turn, len(answer))
        return Asked(seen.seen_at(turn.time), self._model.question_layout(turn.asked), answer, weights)
