"""The learner of a real checkpoint: its losses on a batch of streams, and how often it would have been right."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.train.collate import StreamBatch
from streamvlm.train.packing import PADDING
from streamvlm.vision import normalise


@dataclass(slots=True)
class Tally:
    """Questions of one manner."""

    asked: int = 0
    right: int = 0  # every token of the answer is the model's first choice, as greedy decoding
    decided: int = 0  # its first token is


class Tuner(nn.Module):
    """A model of any family, trained on what it is to write; positions and visibility are the engine's."""

    def __init__(self, model: VisionLanguageModel, vision: bool) -> None:
        super().__init__()
        self.model = model
        self.module = model.module
        self._vision = vision  # whether the tower learns too

    def forward(self, batch: StreamBatch) -> dict[str, Tensor]:
        """The weighted mean of cross-entropy over what is to be written, and the plain one."""
        losses, _, weights = self._losses(batch)
        whole = (losses * weights).sum() / weights.sum().clamp(min=1e-6)
        return {"loss": whole, "plain": losses.detach().sum() / max(1, len(losses))}

    def _losses(self, batch: StreamBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Per token to be written: its loss, whether it is the first choice, its weight."""
        learnt = batch.targets != PADDING
        logits = self.model.logits(self.hidden(batch)[learnt])
        targets = batch.targets[learnt]
        right = logits.argmax(-1) == targets
        return cross_entropy(logits, targets, reduction="none"), right, batch.weights[learnt]

    def hidden(self, batch: StreamBatch) -> Tensor:
        """Hidden states [b, n, hidden] of all rows."""
        with nullcontext() if self._vision else torch.no_grad():
            seen = [self.model.vision_features(normalise(f, self.model.pixels)) for f in batch.frames]
        embeds = self.model.embed_rows(batch.ids, batch.visual)
        tokens = torch.cat([embed.flatten(0, 1) for embed, _ in seen])
        embeds = embeds.masked_scatter(batch.visual.unsqueeze(-1), tokens.to(embeds.dtype))
        injected = zip(*(deepstack for _, deepstack in seen), strict=True)
        deepstack = tuple(torch.cat([layer.flatten(0, 1) for layer in layers]) for layers in injected)
        rows = LanguageInput(embeds, batch.positions, batch.visual, deepstack)
        return self.model.language(rows, attention_mask=batch.mask)

    @torch.no_grad()
    def judge(self, batch: StreamBatch, tallies: dict[str, Tally]) -> tuple[float, float]:
        """Add the batch's questions to `tallies`, by manner; returns the summed loss and weight of its tokens."""
        losses, right, weights = self._losses(batch)
        learnt = (batch.targets != PADDING).cpu()
        hit = torch.ones(learnt.shape, dtype=torch.bool)
        hit[learnt] = right.cpu()
        block = batch.block.cpu()
        for row, manners in enumerate(batch.manners):
            for number, manner in enumerate(manners, start=1):
                mine = hit[row][(block[row] == number) & learnt[row]]
                tally = tallies.setdefault(manner, Tally())
                tally.asked += 1
                tally.right += bool(mine.all())
                tally.decided += bool(mine[0])
        return float((losses * weights).sum()), float(weights.sum())
