"""One learner: the model, what it is trained on besides answers, a step, and its accuracy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from streamvlm.models.base import LanguageInput
from streamvlm.models.qwen3_vl import Qwen3VL
from streamvlm.train import attention, happening
from streamvlm.train.clips import LABEL_SIZES
from streamvlm.train.gallery import Features
from streamvlm.train.packing import PADDING, Batch
from streamvlm.train.weights import Weights
from streamvlm.vision import normalise

_UNCHANGED = 0.05  # weight of remembering what is still there
_POINTER = 64  # width of the space in which questions point at frames
Score = dict[str, tuple[int, int]]  # task to (right, asked)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What the vision tokens of some frames cover: colour, shape, tens, ones, word."""

    now: Tensor  # uint8 [frames, tokens, 5]
    before: Tensor  # uint8 [frames, tokens, 5] in the frame before


class Learner(nn.Module):
    """The model with three heads that are thrown away afterwards.

    One makes each vision token name what it covers, and what it covered a frame ago: without it a model this small
    stays near 74 % on scenes it has not seen; with it, over 99 %. The second makes a question point, halfway up the
    text tower, at the frames that show its answer; the third makes a frame tell what is happening in it.
    """

    def __init__(self, model: Qwen3VL) -> None:
        super().__init__()
        self.model = model
        self.module = model.module
        hidden = model.text_spec.hidden
        model.language_model.set_attn_implementation(attention.register())
        self.naming = nn.Linear(hidden, 2 * sum(LABEL_SIZES))
        self.asks, self.shows = nn.Linear(hidden, _POINTER), nn.Linear(hidden, _POINTER)
        self.telling = nn.Linear(hidden, sum(happening.SIZES))
        self._hidden: dict[str, Tensor] = {}  # of the latest batch [b, n, hidden], at the depths where heads read
        layers = model.language_model.layers
        middle = (len(layers) - 1) // 2
        for name, depth in (("telling", middle), ("pointing", middle + 1)):  # first what happened, then when it was
            layers[min(depth, len(layers) - 1)].register_forward_hook(partial(self._note, name))

    def forward(self, batch: Batch, shown: Tensor | Features, labels: Labels, weights: Weights) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            shown: uint8 [frames, 2, 3, side, side] what `Batch.before` and `Batch.where` name; or what the vision tower
                makes of it, which then does not learn.
            labels: what each vision token covers and covered.
            weights: of the losses beside that of the answers; without a question, the text tower stays as it is.
        """
        features = shown if isinstance(shown, Features) else self.see(shown)
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=features.embeds.device)
        if weights.naming:
            losses["naming"] = self._naming_loss(features.embeds, labels)
            total = total + weights.naming * losses["naming"]
        if not (batch.targets != PADDING).any():
            return losses | {"loss": total}
        losses["answer"] = nn.functional.cross_entropy(*self.answer_logits(batch, features))
        total = total + losses["answer"]
        if weights.pointing:
            losses["pointing"] = self._pointing_loss(batch)
            total = total + weights.pointing * losses["pointing"]
        if weights.telling:
            losses["telling"] = self._telling_loss(batch)
            total = total + weights.telling * losses["telling"]
        return losses | {"loss": total}

    def _note(self, name: str, _module: nn.Module, _arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self._hidden[name] = output if isinstance(output, Tensor) else output[0]

    def _pointing_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of one of the right vision rows among all that the question sees."""
        episode, row = batch.pointers.row.unbind(1)
        if not len(row):
            return torch.zeros((), device=row.device)
        asks, shows = self.asks(self._hidden["pointing"][episode, row]), self.shows(self._hidden["pointing"])
        scores = torch.einsum("pd,pnd->pn", asks, shows[episode]).float() / _POINTER**0.5
        seen = batch.mask[episode, 0, row] & batch.visual[episode]
        right = scores.masked_fill(~batch.pointers.evidence, -torch.inf).logsumexp(1)
        losses: Tensor = scores.masked_fill(~seen, -torch.inf).logsumexp(1) - right
        return losses.mean()

    def _telling_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of what is happening in the frames."""
        episode, row = batch.happenings.row.unbind(1)
        if not len(row):
            return torch.zeros((), device=row.device)
        parts = torch.split(self.telling(self._hidden["telling"][episode, row]).float(), list(happening.SIZES), dim=-1)
        losses = [nn.functional.cross_entropy(part, batch.happenings.label[:, i]) for i, part in enumerate(parts)]
        return torch.stack(losses).sum()

    def see(self, pairs: Tensor) -> Features:
        """The vision tower on uint8 [n, 2, 3, side, side]."""
        return Features(*self.model.vision_features(normalise(pairs.flatten(0, 1), self.model.pixels)))

    def answer_logits(self, batch: Batch, seen: Features) -> tuple[Tensor, Tensor]:
        """float32 [answer tokens, vocabulary] and the ids they should be."""
        there = batch.block != PADDING
        embeds = self.model.embedding(batch.ids[there])
        visual, targets = batch.visual[there], batch.targets[there]
        embeds = embeds.masked_scatter(visual.unsqueeze(-1), seen.embeds[batch.kept].to(embeds.dtype))
        deepstack = tuple(layer[batch.kept] for layer in seen.deepstack)
        rows = LanguageInput(embeds[None], batch.positions[there][None], visual[None], deepstack)
        hidden = self.model.language(rows, tiles=attention.tiles(batch.mask, there))[0]
        self._hidden = {name: _padded(one[0], there) for name, one in self._hidden.items()}
        learnt = targets != PADDING
        return self.model.logits(hidden[learnt]), targets[learnt]

    def _naming_loss(self, embeds: Tensor, labels: Labels) -> Tensor:
        """Cross-entropy of what each vision token covers, and of what it covered where that is something else.

        Where nothing has changed, which is nearly everywhere, copying the present would do: it counts for little.
        """
        now, before = labels.now.long().flatten(0, 1), labels.before.long().flatten(0, 1)
        of_now, of_before = self.naming(embeds).flatten(0, 1).chunk(2, dim=-1)
        weight = torch.where((now != before).any(1), 1.0, _UNCHANGED)
        remembered: Tensor = (_label_losses(of_before, before) * weight).sum() / weight.sum()
        return _label_losses(of_now, now).mean() + remembered

    @torch.no_grad()
    def accuracy(self, batch: Batch, pairs: Tensor) -> Score:
        """(right, asked) per task: every token of the answer is the model's first choice, as greedy decoding."""
        score: Score = defaultdict(lambda: (0, 0))
        logits, targets = self.answer_logits(batch, self.see(pairs))
        wrong = torch.zeros(batch.targets.shape, dtype=torch.bool)
        wrong[(batch.targets != PADDING).cpu()] = (logits.argmax(-1) != targets).cpu()
        blocks = batch.block.cpu()
        for row, episode in enumerate(batch.episodes):
            for number, asked in enumerate(episode.asked, start=1):
                missed = bool(wrong[row][blocks[row] == number].any())
                right, total = score[asked.question.task]
                score[asked.question.task] = (right + (not missed), total + 1)
        return dict(score)


def _padded(rows: Tensor, there: Tensor) -> Tensor:
    """[b, n, hidden] from the packed rows [rows, hidden] that are no padding, `there` bool [b, n]."""
    return rows.new_zeros(*there.shape, rows.shape[-1]).masked_scatter(there.unsqueeze(-1), rows)


def _label_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """[n] summed over the labels of each token: logits [n, all classes], labels int64 [n, 5]."""
    parts = torch.split(logits.float(), list(LABEL_SIZES), dim=-1)
    each = [nn.functional.cross_entropy(part, labels[:, i], reduction="none") for i, part in enumerate(parts)]
    return torch.stack(each).sum(0)
