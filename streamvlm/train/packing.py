"""Episodes become padded tensors whose positions and visibility are those of streaming inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from streamvlm.models.base import Layout, VisionLanguageModel
from streamvlm.models.chat import chatml
from streamvlm.train.architecture import GRID
from streamvlm.train.episodes import Asked, Episode
from streamvlm.train.vocabulary import END

PADDING = -1
STREAM = 0
LIVE, BROUGHT, PAST = 0, 1, 2
ORIGIN = 0  # where live questions begin, group-decoupled: at the first row they see, which is the prefix's
_REMEMBERED = 50_000  # texts; most hold a time and are never seen again
_SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one episode."""

    ids: Tensor  # int64 [n]
    positions: Tensor  # int64 [n, 3]
    visual: Tensor  # bool [n]
    block: Tensor  # int64 [n] STREAM, or the number of the question block, from 1
    moment: Tensor  # int64 [n] frame a row belongs to; -1 the prefix; in a block, the last frame the row sees
    origin: Tensor  # int64 [n] LIVE, BROUGHT back, or the PAST in which what is brought back was seen
    targets: Tensor  # int64 [n] the token to predict, PADDING where none is learnt


@dataclass(frozen=True, slots=True, eq=False)
class Pointers:
    """For questions that only some frames answer: which vision rows those are."""

    row: Tensor  # int64 [p, 2] (episode, row) of the question's last token
    evidence: Tensor  # bool [p, n] vision rows of the frames that show the answer


@dataclass(frozen=True, slots=True, eq=False)
class Happenings:
    """What is happening in some of the frames."""

    row: Tensor  # int64 [f, 2] (episode, row) of the frame's last row
    label: Tensor  # int64 [f, 4] when, what, and the colour and shape of what did it


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Episodes side by side."""

    ids: Tensor  # int64 [b, n]
    positions: Tensor  # int64 [b, n, 3]
    visual: Tensor  # bool [b, n]
    mask: Tensor  # bool [b, 1, n, n] which row (third axis) sees which (fourth)
    targets: Tensor  # int64 [b, n]
    block: Tensor  # int64 [b, n]
    pointers: Pointers
    kept: Tensor  # bool [frames, tokens] which vision tokens of each frame are there
    happenings: Happenings
    episodes: tuple[Episode, ...]

    @property
    def before(self) -> Tensor:
        """int64 [frames] the frame of the same clip that was shown before each; itself where none was."""
        return torch.tensor([shot.before for episode in self.episodes for shot in episode.shots])

    @property
    def where(self) -> tuple[Tensor, Tensor]:
        """(clip, frame) int64 [frames] each, of every vision frame in the order of its rows."""
        shots = [shot for episode in self.episodes for shot in episode.shots]
        return torch.tensor([s.clip for s in shots]), torch.tensor([s.frame for s in shots])


class Packer:
    """Builds batches through the model's own layouts, and remembers tokenised text."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self._model = model
        self._questions: dict[str, Layout] = {}
        self._answers: dict[str, Tensor] = {}
        plain, system = chatml(None).prefix, chatml(_SYSTEM).prefix
        self._prefixes = (model.text_layout(plain), model.text_layout(system))

    def batch(self, episodes: Sequence[Episode]) -> Batch:
        """Pad to the longest episode; padding sees and is seen by padding only."""
        rows = [self.rows(episode) for episode in episodes]

        def padded(name: str, value: int) -> Tensor:
            return pad_sequence([getattr(r, name) for r in rows], batch_first=True, padding_value=value)

        block, moment = padded("block", PADDING), padded("moment", PADDING)
        visual, targets = padded("visual", 0), padded("targets", PADDING)
        return Batch(
            ids=padded("ids", 0),
            positions=padded("positions", 0),
            visual=visual,
            mask=visibility(block, moment, padded("origin", LIVE)).unsqueeze(1),
            targets=targets,
            block=block,
            pointers=_pointers(episodes, block, moment, visual, targets),
            kept=torch.cat([_kept(episode) for episode in episodes]),
            happenings=_happenings(episodes, block, moment),
            episodes=tuple(episodes),
        )

    def rows(self, episode: Episode) -> Rows:
        """The stream first, then every question block at the position its frame had reached, or at its own."""
        parts: list[Rows] = []
        cursor, ends = 0, []
        prefix = self._prefixes[episode.system]
        parts.append(_stream_rows(prefix, cursor, -1))
        cursor += prefix.extent
        layouts = [self._model.frame_layout(GRID, shot.pts) for shot in episode.shots]
        past = 1 + episode.past  # shots up to the first that was brought back
        # The past ends where what is brought back begins, as it did when that was seen.
        before = cursor + layouts[0].extent - sum(layout.extent for layout in (prefix, *layouts[1:past]))
        if episode.past:
            parts.append(_stream_rows(prefix, before, 0, PAST))
            before += prefix.extent
        for index, layout in enumerate(layouts):
            origin = LIVE if not 0 < index < past + episode.recalled else PAST if index < past else BROUGHT
            rows = _stream_rows(layout, before if origin == PAST else cursor, index, origin)
            parts.append(rows if episode.kept is None else _without(rows, episode.kept[index]))
            before += layout.extent if origin == PAST else 0
            cursor += layout.extent if origin != PAST else 0
            ends.append(cursor)
        for number, asked in enumerate(episode.asked, start=1):
            parts.append(self._question_rows(asked, number, ORIGIN if asked.live else ends[asked.shot]))
        return Rows(*(torch.cat([getattr(p, name) for p in parts]) for name in Rows.__slots__))

    def _question_rows(self, asked: Asked, number: int, cursor: int) -> Rows:
        question, answer = self._text(asked.question.text), self._answer(asked.question.answer)
        ids = torch.cat((question.ids, answer))
        targets = torch.full((len(ids),), PADDING)
        targets[len(question) - 1 : -1] = answer
        positions = torch.arange(cursor, cursor + len(ids)).unsqueeze(1).expand(-1, 3)
        same, moment = torch.ones_like(ids), _moments(asked, len(question), len(answer))
        return Rows(ids, positions, same < 0, same * number, moment, same * LIVE, targets)

    def _text(self, text: str) -> Layout:
        if len(self._questions) > _REMEMBERED:
            self._questions.clear()
        if text not in self._questions:
            self._questions[text] = self._model.question_layout(text)
        return self._questions[text]

    def _answer(self, text: str) -> Tensor:
        if len(self._answers) > _REMEMBERED:
            self._answers.clear()
        if text not in self._answers:
            self._answers[text] = self._model.text_layout(text + END).ids
        return self._answers[text]


def _moments(asked: Asked, read: int, written: int) -> Tensor:
    """int64 [read + written] the newest frame each row sees: a question is of its moment, a live answer goes on."""
    moment = torch.full((read + written,), asked.shot)
    if asked.follows:
        steps = torch.arange(written).clamp(max=len(asked.follows) - 1)
        moment[read:] = torch.tensor(asked.follows)[steps]
    return moment


def _stream_rows(layout: Layout, cursor: int, moment: int, origin: int = LIVE) -> Rows:
    same = torch.ones_like(layout.ids)
    positions, stream = layout.positions + cursor, same * STREAM
    return Rows(layout.ids, positions, layout.visual, stream, same * moment, same * origin, same * PADDING)


def _kept(episode: Episode) -> Tensor:
    return episode.kept if episode.kept is not None else torch.ones(len(episode.shots), GRID[0] * GRID[1]) > 0


def _without(rows: Rows, kept: Tensor) -> Rows:
    """A frame's rows without the vision tokens that are not `kept`; no other moves."""
    there = ~rows.visual
    there[rows.visual] = kept
    return Rows(*(getattr(rows, name)[there] for name in Rows.__slots__))


def visibility(block: Tensor, moment: Tensor, origin: Tensor | None = None) -> Tensor:
    """bool [b, n, n]: stream rows see the earlier stream, a block's rows the stream up to their moment, and itself.

    By `origin`, int64 [b, n]: the window does not see what was brought back, and only what was brought back sees its
    past, which has a sink of its own.
    """
    rows, columns = block.unsqueeze(2), block.unsqueeze(1)
    earlier = torch.ones(block.shape[1], block.shape[1], dtype=torch.bool).tril()
    in_time = moment.unsqueeze(1) <= moment.unsqueeze(2)
    stream = (columns == STREAM) & (rows != PADDING) & in_time
    if origin is not None:
        seer, seen = origin.unsqueeze(2), origin.unsqueeze(1)
        stream &= (seen == LIVE) | (seer != LIVE) | ((seen == BROUGHT) & (rows != STREAM))
        has_past = (origin == PAST).any(1).view(-1, 1, 1)
        stream &= ~(has_past & (seen == LIVE) & (seer != LIVE))
    own = (rows == columns) & (columns != STREAM)
    return earlier & (stream | own)


def _pointers(episodes: Sequence[Episode], block: Tensor, moment: Tensor, visual: Tensor, targets: Tensor) -> Pointers:
    rows, evidence = [], []
    for index, episode in enumerate(episodes):
        for number, asked in enumerate(episode.asked, start=1):
            shown = visual[index] & torch.isin(moment[index], torch.tensor(asked.about, dtype=torch.int64))
            if shown.any():
                learnt = (block[index] == number) & (targets[index] != PADDING)
                rows.append((index, int(learnt.nonzero()[0])))
                evidence.append(shown)
    none = torch.zeros(0, block.shape[1], dtype=torch.bool)
    return Pointers(torch.tensor(rows, dtype=torch.int64).view(-1, 2), torch.stack(evidence) if evidence else none)


def _happenings(episodes: Sequence[Episode], block: Tensor, moment: Tensor) -> Happenings:
    rows, labels = [], []
    for index, episode in enumerate(episodes):
        for shot, label in episode.happenings:
            rows.append((index, int(((block[index] == STREAM) & (moment[index] == shot)).nonzero()[-1])))
            labels.append(label)
    return Happenings(
        torch.tensor(rows, dtype=torch.int64).view(-1, 2), torch.tensor(labels, dtype=torch.int64).view(-1, 4)
    )
