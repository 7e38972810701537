"""Region of interest: elsewhere, only large changes are kept. A rectangle, or where the model looks for an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from streamvlm.models.glance import glance
from streamvlm.pruning.protocols import StreamFacts, TokenBlock, TokenPruner, best
from streamvlm.pruning.stage import Stateless
from streamvlm.types import VisionTokens

LOOKS = 4  # at most, at one patch; of more questions, those that were not looked for the longest come first
SIDES = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Roi:
    """After `dtd`: outside a region a token needs a larger difference to be kept; what is due is kept everywhere.

    The region is a rectangle, or the `share` of places that the model attends to for a `question`, or, with `asked`,
    for whatever is asked, watched for or kept track of now. Its tokens come first in a `cap` after it. With `asked`,
    what is perceived depends on what is asked.
    """

    name: ClassVar[str] = "roi"
    paper: ClassVar[str] = "after context-aware streaming (Artic), which lowers the bitrate instead"

    top: float = 0.0  # sides of the rectangle as shares of the frame
    left: float = 0.0
    bottom: float = 1.0
    right: float = 1.0
    outside: float = 0.25  # difference that is kept outside
    question: str | None = None  # the places that matter to it
    asked: bool = False  # and those that matter to pending questions, watches and what is kept track of
    share: float = 0.25  # of the places, for each question
    every: float = 2.0  # seconds after which the model looks again

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"roi: 0 <= top < bottom <= 1 and 0 <= left < right <= 1, got {self}")
        if self.outside < 0:
            raise ValueError(f"roi: outside must be 0 or more, got {self.outside}")
        if self.question is not None and not (isinstance(self.question, str) and self.question.strip()):
            raise ValueError(f"roi: question must be a question in quotes, got {self.question!r}")
        if not 0 < self.share <= 1 or self.every <= 0:
            raise ValueError(
                f"roi: share must be in (0, 1] and every more than 0 seconds, got {self.share} and {self.every}"
            )
        if self.by_attention and (self.top, self.left, self.bottom, self.right) != SIDES:
            raise ValueError(f"roi: a rectangle, or question and asked, not both; got {self}")

    @property
    def by_attention(self) -> bool:
        """Whether the model says where the region is."""
        return self.question is not None or self.asked

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream."""
        return _Attended(self, facts) if self.by_attention else _Rectangle(self)


class _Rectangle(Stateless):
    def __init__(self, settings: Roi) -> None:
        self.strictness = 1.0
        self._settings = settings

    def prune(self, block: TokenBlock) -> TokenBlock:
        """All inside, and what is worth it outside."""
        if block.score is None:
            raise ValueError("roi: stands after a method that scores tokens by their change, as dtd")
        inside = self.inside(block.tokens.slot, block.patch.grid)
        return block.keep(inside | (block.score >= self._settings.outside * self.strictness))

    def inside(self, slot: Tensor, grid: tuple[int, int]) -> Tensor:
        """bool [n]: places whose middle is in the rectangle."""
        box = self._settings
        y, x = (slot // grid[1] + 0.5) / grid[0], (slot % grid[1] + 0.5) / grid[1]
        within: Tensor = torch.logical_and(y >= box.top, y < box.bottom) & (x >= box.left) & (x < box.right)
        return within


class _Attended:
    """Looks, now and then, at the newest token of every place with every question in mind."""

    def __init__(self, settings: Roi, facts: StreamFacts) -> None:
        self.strictness = 1.0
        self.spent = 0  # rows of the language model that the latest patch took
        self._settings = settings
        self._model = facts.model
        self._interests = facts.interests
        self.reset()

    def reset(self) -> None:
        """Forget the picture and where anything was in it."""
        self._newest: VisionTokens | None = None  # of every place that was there, in order
        self._found: dict[str, tuple[float, Tensor]] = {}  # question -> when, and float32 [full] how much each matters

    def note(self, block: TokenBlock) -> None:
        """What is looked at is what came here, whatever is kept of it."""

    def prune(self, block: TokenBlock) -> TokenBlock:
        """All that matters, and what is worth it elsewhere; without scores, only say what matters."""
        self.spent = 0
        if len(block):
            self._newest = block.tokens if self._newest is None else renewed(self._newest, block.tokens)
        self._look(block.patch.pts)
        if not self._found:
            return block
        slot, maps = block.tokens.slot, [found for _, found in self._found.values()]
        if block.score is None:
            return replace(block, score=torch.stack(maps).amax(0)[slot])
        places = math.ceil(self._settings.share * block.patch.full)
        inside = torch.stack([best(found, places) for found in maps]).any(0)[slot]
        scored = replace(block, score=block.score + inside.to(block.score))  # it counts as much as being due
        return scored.keep(inside | (block.score >= self._settings.outside * self.strictness))

    def _look(self, now: float) -> None:
        wanted = self._wanted()
        self._found = {text: found for text, found in self._found.items() if text in wanted}
        if self._newest is None:
            return
        ages = {text: self._found[text][0] if text in self._found else -math.inf for text in wanted}
        due = [text for text in sorted(wanted, key=ages.__getitem__) if now - ages[text] >= self._settings.every]
        full = self._newest.grid[0] * self._newest.grid[1]
        for text in due[:LOOKS]:
            share, rows = glance(self._model, self._newest, text)
            places = torch.zeros(full)
            places[self._newest.slot] = share
            self._found[text] = (now, places)
            self.spent += rows

    def _wanted(self) -> tuple[str, ...]:
        fixed = () if self._settings.question is None else (self._settings.question,)
        asked = self._interests.texts if self._settings.asked else ()
        return tuple(dict.fromkeys((*fixed, *asked)))


def renewed(old: VisionTokens, new: VisionTokens) -> VisionTokens:
    """The tokens of `old` with those of `new` in their places, and of places that only `new` has."""
    stays = ~torch.isin(old.slot, new.slot)
    slot, order = torch.cat((old.slot[stays], new.slot)).sort()

    def joined(before: Tensor, after: Tensor) -> Tensor:
        return torch.cat((before[stays.to(before.device)], after))[order.to(after.device)]

    deepstack = tuple(joined(a, b) for a, b in zip(old.deepstack, new.deepstack, strict=True))
    return replace(new, embeds=joined(old.embeds, new.embeds), deepstack=deepstack, slot=slot)
