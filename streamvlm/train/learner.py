"""One learner: the model, what it is trained on besides answers, a step, and its accuracy."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamvlm.models.base import LanguageInput
from streamvlm.models.qwen3_vl import Qwen3VL
from streamvlm.train.clips import LABEL_SIZES
from streamvlm.train.packing import PADDING, Batch
from streamvlm.vision import normalise

Score = dict[str, tuple[int, int]]  # task to (right, asked)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Projected vision tokens of some frames."""

    embeds: Tensor  # [frames, tokens, hidden]
    deepstack: tuple[Tensor, ...]  # [frames, tokens, hidden] each

    def __getitem__(self, index: Tensor) -> Features:
        return Features(self.embeds[index], tuple(layer[index] for layer in self.deepstack))


class Learner(nn.Module):
    """The model with a head, thrown away afterwards, that makes each vision token name what it covers.

    Without that head a model this small stays near 74 % on scenes it has not seen; with it, over 99 %.
    """

    def __init__(self, model: Qwen3VL) -> None:
        super().__init__()
        self.model = model
        self.module = model.module
        self.naming = nn.Linear(model.text_spec.hidden, sum(LABEL_SIZES))

    def forward(
        self, batch: Batch, seen: Tensor | Features, labels: Tensor | None, auxiliary: float
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            seen: uint8 [frames, 3, side, side] in the order of `batch.where`, or what `see` gave for them.
            labels: uint8 [frames, tokens, 4] what each vision token covers; None without naming.
            auxiliary: weight of the naming loss.
        """
        features = self.see(seen) if isinstance(seen, Tensor) else seen
        logits, targets = self.answer_logits(batch, features)
        # Not the mean, which is nan for a batch without a question.
        answer = nn.functional.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))
        if labels is None:
            return {"loss": answer, "answer": answer}
        naming = self._naming_loss(features.embeds, labels.long())
        return {"loss": answer + auxiliary * naming, "answer": answer, "naming": naming}

    def see(self, frames: Tensor) -> Features:
        """The vision tower on uint8 [n, 3, side, side]."""
        return Features(*self.model.vision_features(normalise(frames, self.model.pixels)))

    def remember(self, frames: Tensor, device: torch.device) -> Features:
        """What `see` gives for many frames, for stages that leave the vision tower as it is."""
        with torch.no_grad():
            parts = [self.see(chunk.to(device)) for chunk in torch.split(frames, 256)]
        deepstack = zip(*(part.deepstack for part in parts), strict=True)
        return Features(torch.cat([p.embeds for p in parts]), tuple(torch.cat(layer) for layer in deepstack))

    def answer_logits(self, batch: Batch, seen: Features) -> tuple[Tensor, Tensor]:
        """float32 [answer tokens, vocabulary] and the ids they should be."""
        embeds = self.model.embedding(batch.ids)
        embeds = embeds.masked_scatter(batch.visual.unsqueeze(-1), seen.embeds.to(embeds.dtype))
        deepstack = tuple(d.flatten(0, 1) for d in seen.deepstack)
        rows = LanguageInput(embeds, batch.positions, batch.visual, deepstack)
        hidden = self.model.language(rows, attention_mask=batch.mask)
        learnt = batch.targets != PADDING
        return self.model.logits(hidden[learnt]), batch.targets[learnt]

    def _naming_loss(self, embeds: Tensor, labels: Tensor) -> Tensor:
        parts = torch.split(self.naming(embeds).float(), list(LABEL_SIZES), dim=-1)
        losses = [
            nn.functional.cross_entropy(part.flatten(0, 1), labels[..., i].flatten()) for i, part in enumerate(parts)
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def accuracy(self, batch: Batch, frames: Tensor) -> Score:
        """(right, asked) per task: every token of the answer is the model's first choice, as greedy decoding."""
        score: Score = defaultdict(lambda: (0, 0))
        logits, targets = self.answer_logits(batch, self.see(frames))
        wrong = torch.zeros(batch.targets.shape, dtype=torch.bool)
        wrong[(batch.targets != PADDING).cpu()] = (logits.argmax(-1) != targets).cpu()
        blocks = batch.block.cpu()
        for row, episode in enumerate(batch.episodes):
            for number, asked in enumerate(episode.asked, start=1):
                missed = bool(wrong[row][blocks[row] == number].any())
                right, total = score[asked.question.task]
                score[asked.question.task] = (right + (not missed), total + 1)
        return dict(score)
