"""Economy: one stream's stages, in order, and what they save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streamvlm.errors import ModelError
from streamvlm.memory.blocks import KVBlock
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.protocols import (
    Adjustable,
    FrameEncoder,
    FrameGate,
    Governor,
    KVCompressor,
    Method,
    Patch,
    Spending,
    StreamFacts,
    TokenBlock,
    TokenPruner,
)
from streamvlm.pruning.savings import Prices, Savings
from streamvlm.types import Kind, VisionTokens

_ADJUSTABLE = "gate, dtd, roi, stc, vidcom2 or dycoke"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What is left of a patch."""

    tokens: VisionTokens  # may be none
    saved: Savings


class Economy:
    """The composition of one stream. `see` runs on its encode thread, `compress` on the engine's.

    Raises:
        ValueError: two encoders, a method whose stage is none of the four, or a budget with no threshold to move.
    """

    def __init__(self, methods: Sequence[Method], facts: StreamFacts) -> None:
        self._model = facts.model
        self.interests = facts.interests
        self._prices = Prices.of(facts.model)
        self._stages = [method.start(facts) for method in methods]
        for method, stage in zip(methods, self._stages, strict=True):
            if not isinstance(stage, FrameGate | FrameEncoder | TokenPruner | KVCompressor):
                raise ValueError(f"{method.name}: its stage is no gate, encoder, pruner or compressor")
        encoders = [s for s in self._stages if isinstance(s, FrameEncoder)]
        if len(encoders) > 1:
            raise ValueError(f"a composition has at most one encoder, got {len(encoders)}")
        if any(isinstance(s, Governor) for s in self._stages) and not any(
            isinstance(s, Adjustable) for s in self._stages
        ):
            raise ValueError(f"a budget moves the thresholds of {_ADJUSTABLE}; none of them is in the composition")
        self._gates = [s for s in self._stages if isinstance(s, FrameGate)]
        self._encoder = encoders[0] if encoders else None
        self._pruners = [s for s in self._stages if isinstance(s, TokenPruner)]
        self._compressors = [s for s in self._stages if isinstance(s, KVCompressor)]
        self._undelimited = bool(facts.model.frame_layout((1, 1), 0.0).visual.all())
        self.compressed = 0  # rows left out on the way to the store

    @property
    def in_turn(self) -> bool:
        """Whether no patch can be encoded before all is known of the one before it: for a gate what was kept of it, for
        an encoder of its own what it reuses."""
        return bool(self._gates) or self._encoder is not None

    @torch.inference_mode()
    def see(self, patch: Patch, encode: Callable[[Patch], VisionTokens] | None = None) -> Seen:
        """Encode a patch, by `encode` if nothing of the tower is reused, and leave out what is not worth keeping."""
        if patch.cut:
            self._reset()
        if not all(gate.admit(patch) for gate in self._gates):
            return self._seen(nothing(self._model, patch), patch, computed=0.0)
        block = TokenBlock(self._encode(patch, encode), patch)
        for pruner in self._pruners:
            block = pruner.prune(block)
        for stage in self._stages:
            if isinstance(stage, FrameGate | FrameEncoder | TokenPruner):
                stage.note(block)
        computed = 1.0 if self._encoder is None else self._encoder.computed
        spent = sum(stage.spent for stage in self._stages if isinstance(stage, Spending))
        return self._seen(block.tokens, patch, computed, spent)

    def _govern(self, kept: int, seconds: float) -> None:
        """Move the thresholds of all stages that have one, if anybody governs them."""
        for governor in self._stages:
            if isinstance(governor, Governor):
                strictness = governor.observe(kept, seconds)
                for stage in self._stages:
                    if isinstance(stage, Adjustable):
                        stage.strictness = strictness

    @property
    def compresses(self) -> bool:
        """Whether it leaves out rows of what leaves the window."""
        return bool(self._compressors)

    def before(self, keep: Callable[[KVBlock], bool]) -> Callable[[KVBlock], bool]:
        """`keep`, given only the rows of what leaves the window that the compressors choose."""

        def kept(block: KVBlock) -> bool:
            small = self.compress(block)
            taken = keep(small)
            self.compressed += len(block) - len(small) if taken else 0
            return taken

        return kept

    def compress(self, block: KVBlock) -> KVBlock:
        """What of a block is to be stored; text and the last vision row are never left out."""
        vision = self._vision(block)
        keep = torch.ones(len(block), dtype=torch.bool)
        for compressor in self._compressors:
            rows = keep.nonzero().squeeze(1)
            keep[rows] = compressor.plan(cut_rows(block, rows), vision[rows]).cpu() | ~vision[rows]
        if not bool(keep[vision].any()) and bool(vision.any()):
            keep[vision.nonzero()[-1]] = True
        return cut_rows(block, keep.nonzero().squeeze(1))

    def _vision(self, block: KVBlock) -> Tensor:
        """bool [n]: rows of a frame that are no delimiters. They share one t; delimiters have one each. In a family
        with one position axis there are no delimiters."""
        if block.kind is not Kind.VISION:
            return torch.zeros(len(block), dtype=torch.bool)
        if self._undelimited:
            return torch.ones(len(block), dtype=torch.bool)
        t = block.positions[:, 0].cpu()
        return (t.unsqueeze(0) == t.unsqueeze(1)).sum(1) > 1

    def _encode(self, patch: Patch, encode: Callable[[Patch], VisionTokens] | None) -> VisionTokens:
        if self._encoder is not None:
            return self._encoder.encode(patch)
        if encode is not None:
            return encode(patch)
        return self._model.encode(patch.frames, [(patch.pts, patch.duration)])[0]

    def _reset(self) -> None:
        for stage in self._stages:
            if isinstance(stage, FrameGate | FrameEncoder | TokenPruner):
                stage.reset()

    def _seen(self, tokens: VisionTokens, patch: Patch, computed: float, spent: int = 0) -> Seen:
        pruned = patch.full - len(tokens)
        if pruned < 0:
            raise ModelError(f"a pruner made {len(tokens)} tokens of {patch.full}")
        self._govern(len(tokens), patch.duration)
        saved = Savings(
            patches=1,
            unchanged=int(len(tokens) == 0),
            tower_skipped=1 - computed,
            tokens=patch.full,
            pruned=pruned,
            tower_flops=(1 - computed) * self._prices.tower(patch.full),
            prefill_flops=(pruned - spent) * self._prices.token,
            looked=spent,
        )
        return Seen(tokens, saved)


def nothing(model: VisionLanguageModel, patch: Patch) -> VisionTokens:
    """A patch of which nothing is kept."""
    none = torch.empty(0, model.text_spec.hidden, dtype=model.dtype, device=model.device)
    return VisionTokens(none, (), torch.empty(0, dtype=torch.int64), patch.grid, patch.pts, patch.duration)


def cut_rows(block: KVBlock, rows: Tensor) -> KVBlock:
    """The block with only these rows, int64 [k] ascending."""
    if len(rows) == len(block):
        return block
    at = rows.to(block.keys.device)
    positions = block.positions[rows.to(block.positions.device)]
    return replace(block, keys=block.keys[:, :, at], values=block.values[:, :, at], positions=positions)
