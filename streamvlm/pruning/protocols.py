"""The four places where work can be saved, in order, and the records that travel between them.

    pixels -> FrameGate -> FrameEncoder -> TokenPruner -> (prefill, window) -> KVCompressor -> store

A *method* is a frozen record of hyper-parameters; its `start` makes the *stage* of one stream, which holds all state.
Nothing is shared between streams, and a stage that is reset remembers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from streamvlm.memory.blocks import KVBlock
from streamvlm.models.base import VisionLanguageModel
from streamvlm.types import VisionTokens


@dataclass(slots=True)
class Interests:
    """What is asked of one stream now. The engine's thread writes it, the encode thread reads it."""

    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class StreamFacts:
    """What a method may know about the stream it is started for."""

    model: VisionLanguageModel
    fps: float  # frames per second of stream
    horizon: float  # seconds after which a token has left the window; inf when it never does
    interests: Interests = field(default_factory=Interests)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One temporal patch before the vision tower."""

    frames: Tensor  # uint8 [t, 3, H, W]
    grid: tuple[int, int]  # merged (rows, columns) its tokens will have
    pts: float  # seconds, of its first frame
    duration: float  # seconds it covers
    cut: bool = False  # frames were lost before it, or its size is new: nothing before it can be compared
    old: int = 0  # frames at its front that the patch before it has shown too

    def __post_init__(self) -> None:
        if not 0 <= self.old < len(self.frames):
            raise ValueError(f"old must be 0 to {len(self.frames) - 1}, got {self.old}: a patch shows something new")

    @property
    def new(self) -> Tensor:
        """uint8 [n, 3, H, W], the frames that no patch has shown before."""
        return self.frames[self.old :]

    @property
    def full(self) -> int:
        """Tokens it has when nothing is left out."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True, eq=False)
class TokenBlock:
    """The tokens of a patch that are still there."""

    tokens: VisionTokens
    patch: Patch
    score: Tensor | None = None  # float [n], how much each is worth keeping; None where no method has said

    def __post_init__(self) -> None:
        if self.score is not None and self.score.shape != (len(self.tokens),):
            raise ValueError(f"score must be [{len(self.tokens)}], got {list(self.score.shape)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def keep(self, chosen: Tensor) -> TokenBlock:
        """Only the tokens that `chosen`, bool [n], names; in order, with their slots and deepstack features."""
        index = chosen.to("cpu").nonzero().squeeze(1)
        if len(index) == len(self):
            return self
        at = index.to(self.tokens.embeds.device)
        tokens = replace(
            self.tokens,
            embeds=self.tokens.embeds[at],
            deepstack=tuple(layer[at] for layer in self.tokens.deepstack),
            slot=self.tokens.slot[index],
        )
        return replace(self, tokens=tokens, score=None if self.score is None else self.score[index])


def best(score: Tensor, count: int) -> Tensor:
    """bool [n]: the `count` highest of `score` [n], on the CPU; of equals the earlier."""
    chosen = torch.zeros(len(score), dtype=torch.bool)
    chosen[score.cpu().argsort(descending=True, stable=True)[: max(0, count)]] = True
    return chosen


class Stage(Protocol):
    """What every stage has. Called on one thread only."""

    def reset(self) -> None:
        """Forget everything: what comes next cannot be compared with what was."""

    def note(self, block: TokenBlock) -> None:
        """What is really kept of a patch, after all stages: the reference of what comes."""


@runtime_checkable
class FrameGate(Protocol):
    """Sees pixels and may say that nothing in them is new, which saves the vision tower too."""

    def admit(self, patch: Patch) -> bool:
        """Whether the patch is to be encoded."""

    def reset(self) -> None:
        """See `Stage`."""

    def note(self, block: TokenBlock) -> None:
        """See `Stage`; not called for a patch that was not admitted."""


@runtime_checkable
class FrameEncoder(Protocol):
    """Vision tower and projector, perhaps with features of earlier frames; at most one in a composition."""

    def encode(self, patch: Patch) -> VisionTokens:
        """All tokens of a patch."""

    def reset(self) -> None:
        """See `Stage`."""

    def note(self, block: TokenBlock) -> None:
        """See `Stage`."""

    @property
    def computed(self) -> float:
        """Share of the tower that the latest patch took, 0 to 1."""


@runtime_checkable
class TokenPruner(Protocol):
    """Leaves out projected tokens. Those kept stay in order and keep their slots, so that none of them moves."""

    def prune(self, block: TokenBlock) -> TokenBlock:
        """What is kept; may be nothing. May also set scores, for stages after it."""

    def reset(self) -> None:
        """See `Stage`."""

    def note(self, block: TokenBlock) -> None:
        """See `Stage`."""


@runtime_checkable
class Adjustable(Protocol):
    """A stage whose threshold a budget may move."""

    strictness: float  # multiplies its threshold or divides its share; 1 is as configured, more keeps fewer tokens


@runtime_checkable
class Governor(Protocol):
    """A token pruner that sees what every patch came to and sets the strictness of all adjustable stages."""

    def observe(self, kept: int, seconds: float) -> float:
        """Tokens kept of a patch of so many seconds; the strictness from now on."""

    def prune(self, block: TokenBlock) -> TokenBlock:
        """See `TokenPruner`."""

    def reset(self) -> None:
        """See `Stage`."""

    def note(self, block: TokenBlock) -> None:
        """See `Stage`."""


@runtime_checkable
class Spending(Protocol):
    """A stage that runs the language model to decide."""

    spent: int  # rows that the latest patch took


@runtime_checkable
class KVCompressor(Protocol):
    """Leaves out keys and values of a block on its way from the window to the store."""

    def plan(self, block: KVBlock, vision: Tensor) -> Tensor:
        """bool [n], the rows to keep; `vision` [n] says which may be left out, the others are text. A kept row keeps
        its position, which is its slot's identity however often it is compressed."""

    def reset(self) -> None:
        """See `Stage`."""


class Method(Protocol):
    """A method's hyper-parameters: a frozen dataclass whose fields they are."""

    name: ClassVar[str]  # in specifications: letters and digits
    paper: ClassVar[str]  # authors' name of it and arXiv number

    def start(self, facts: StreamFacts) -> object:
        """The stage of one stream: implements one or several of the protocols above."""
