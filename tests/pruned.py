"""Blocks of made-up tokens, and pruners one after the other, for the tests of single methods."""

from __future__ import annotations

import torch
from families import random_model
from torch import Tensor

from streamvlm.pruning.protocols import Patch, StreamFacts, TokenBlock, TokenPruner
from streamvlm.pruning.spec import parse_prune
from streamvlm.types import VisionTokens

GRID = (4, 4)
FULL = 16
HIDDEN = 64  # as the random models have
PRUNERS = [
    "dtd(by=features)", "dtd", "dtd+cap(5)", "dtd(against=previous, slack=0, peak=16, tau=0.25)", "stc", "vidcom2",
    "dycoke", "tome", "exemplars", "dtd+roi(right=0.5)", "roi(question='why?')+cap(5)",
    "dtd+roi(question='why?')+cap(5)", "cap(3)", "dtd(by=features)+budget(8)",
]  # fmt: skip


def facts(horizon: float = 16.0) -> StreamFacts:
    return StreamFacts(random_model("qwen3_vl"), 2.0, horizon)


def block_of(embeds: Tensor, at: float = 0.0, picture: Tensor | None = None, span: float = 0.5) -> TokenBlock:
    """All tokens of a 4 x 4 frame; the picture is black unless given."""
    frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8) if picture is None else picture[None]
    tokens = VisionTokens(embeds, (embeds * 2, embeds * 3), torch.arange(FULL), GRID, at, span)
    return TokenBlock(tokens, Patch(frames, GRID, at, span))


def random_blocks(n: int, seed: int = 0, span: float = 0.5) -> list[TokenBlock]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(FULL, HIDDEN, generator=generator)
    made = []
    for i in range(n):
        base = base + 0.3 * torch.randn(FULL, HIDDEN, generator=generator) * (torch.rand(FULL, 1) > 0.5)
        picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
        made.append(block_of(base, i * span, picture, span))
    return made


class Line:
    """Pruners one after the other, as the economy runs them."""

    def __init__(self, spec: str, horizon: float = 16.0) -> None:
        stages = [method.start(facts(horizon)) for method in parse_prune(spec)]
        self.stages = [s for s in stages if isinstance(s, TokenPruner)]

    def __call__(self, block: TokenBlock) -> TokenBlock:
        for stage in self.stages:
            block = stage.prune(block)
        for stage in self.stages:
            stage.note(block)
        return block

    def reset(self) -> None:
        for stage in self.stages:
            stage.reset()
