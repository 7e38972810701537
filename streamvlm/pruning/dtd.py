"""Differential token dropping: a token that looks like the one last kept in its place is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from streamvlm.pruning.difference import DETAIL, distance, reduced, spread
from streamvlm.pruning.protocols import Patch, StreamFacts, TokenBlock, TokenPruner
from streamvlm.pruning.steady import Steady

By = Literal["pixels", "features"]
Against = Literal["kept", "previous"]
DEFAULTS: dict[str, float] = {"pixels": 0.04, "features": 0.25}
REFRESH = 0.75  # of the window: nothing may leave it before its place has been kept again
EPSILON = 1e-6  # seconds


@dataclass(frozen=True, slots=True)
class Dtd:
    """DTD of TimeChat-Online (arXiv:2504.17343), compared with the token last *kept* in the same place.

    The published rule compares with the previous frame, so that slow change is never kept; it is
    `dtd(tau=0.25, against=previous, slack=0, peak=16)`. With pixels and `against=kept`, a patch without a single change
    does not reach the vision tower either.
    """

    name: ClassVar[str] = "dtd"
    paper: ClassVar[str] = "TimeChat-Online, arXiv:2504.17343"

    tau: float | None = None  # keep from this difference on: pixels in [0, 1], features 1 - cosine; None: 0.04, 0.25
    by: By = "pixels"
    against: Against = "kept"
    refresh: float | None = None  # seconds after which a place is kept again; None: three quarters of the window
    slack: int = 1  # pixels of a token's 16 x 16 that an edge may sway unnoticed
    spread: int = 0  # places around a changed one that are kept with it, so that a thing is seen as of one moment
    reach: int = 0  # of those 16 x 16, that the whole picture may be displaced by its camera
    light: float = 1.0  # factor by which the whole picture may be brighter or darker
    peak: int = 2  # side of the parts of those 16 x 16 that are compared; 16: the whole token, as published

    def __post_init__(self) -> None:
        if self.by not in get_args(By) or self.against not in get_args(Against):
            raise ValueError(f"dtd: by is pixels or features, against kept or previous; got {self.by}, {self.against}")
        if self.tau is not None and not 0 < self.tau <= 2:
            raise ValueError(f"dtd: tau must be in (0, 2], got {self.tau}")
        if self.refresh is not None and self.refresh <= 0:
            raise ValueError(f"dtd: refresh must be more than 0 seconds, got {self.refresh}")
        if self.spread < 0:
            raise ValueError(f"dtd: spread must be 0 or more, got {self.spread}")
        if not 0 <= self.slack < DETAIL or self.peak < 1 or DETAIL % self.peak:
            raise ValueError(f"dtd: slack must be 0 to 15 and peak divide 16, got {self.slack} and {self.peak}")
        Steady(self.reach, self.light)

    def start(self, facts: StreamFacts) -> TokenPruner:
        """The pruner of one stream; by pixels against the last kept, a gate as well."""
        if self.by == "features":
            return FeatureDtd(self, facts)
        return PixelGateDtd(self, facts) if self.against == "kept" else PixelDtd(self, facts)


class _Ages:
    """When each place was last kept."""

    def __init__(self, settings: Dtd, facts: StreamFacts) -> None:
        self.settings = settings
        self.facts = facts
        self.refresh = REFRESH * facts.horizon if settings.refresh is None else settings.refresh
        self.threshold = DEFAULTS[settings.by] if settings.tau is None else settings.tau
        self.strictness = 1.0
        self.kept_at: Tensor | None = None  # float64 [full] seconds, by slot; None before the first patch

    def reset(self) -> None:
        """Whatever comes next is new."""
        self.kept_at = None

    def _due(self, patch: Patch) -> Tensor:
        """bool [full], places that must be kept again."""
        if self.kept_at is None or len(self.kept_at) != patch.full:
            return torch.ones(patch.full, dtype=torch.bool)
        return patch.pts - self.kept_at >= self.refresh - EPSILON

    def _keep(self, block: TokenBlock, difference: Tensor) -> TokenBlock:
        """The tokens whose place is due or has changed, the most changed with the highest score."""
        difference = difference.cpu()
        due = self._due(block.patch)[block.tokens.slot]
        kept = TokenBlock(block.tokens, block.patch, difference + due.float())
        changed = difference >= self.threshold * self.strictness
        return kept.keep(due | self._around(changed, block))

    def _around(self, changed: Tensor, block: TokenBlock) -> Tensor:
        """bool [n]: the changed tokens and those `spread` places around them."""
        if not self.settings.spread:
            return changed
        places = torch.zeros(block.patch.full)
        places[block.tokens.slot[changed]] = 1.0
        side = 2 * self.settings.spread + 1
        wide = functional.max_pool2d(places.view(1, 1, *block.patch.grid), side, 1, self.settings.spread)
        return wide.flatten()[block.tokens.slot] > 0

    def _mark(self, block: TokenBlock) -> Tensor:
        """Note when; bool [full], the places that are kept now."""
        full = block.patch.full
        now = torch.zeros(full, dtype=torch.bool)
        now[block.tokens.slot] = True
        if self.kept_at is None or len(self.kept_at) != full:
            self.kept_at = torch.full((full,), -torch.inf, dtype=torch.float64)
        self.kept_at[now] = block.patch.pts
        return now


class PixelDtd(_Ages):
    """By pixels; the reference of each place is the picture it was last kept from, or simply the previous one."""

    def __init__(self, settings: Dtd, facts: StreamFacts) -> None:
        super().__init__(settings, facts)
        self._reference: Tensor | None = None  # float [3, h, w], pieced together of what was kept
        self._looked: tuple[Patch, Tensor, Tensor] | None = None  # the patch at hand, its pixels, its difference

    def reset(self) -> None:
        """Whatever comes next is new."""
        super().reset()
        self._reference = self._looked = None

    def prune(self, block: TokenBlock) -> TokenBlock:
        """Leave out what has not changed."""
        difference = self._look(block.patch)
        return self._keep(block, difference[block.tokens.slot.to(difference.device)])

    def note(self, block: TokenBlock) -> None:
        """What was kept is the new reference of its places; the others keep theirs."""
        self._look(block.patch)
        assert self._looked is not None
        newest = self._looked[1][-1]
        now = self._mark(block)
        if self._reference is None or self.settings.against == "previous":
            self._reference = newest
        else:
            self._reference = torch.where(spread(now, block.patch.grid).to(newest.device), newest, self._reference)
        self._looked = None

    def _look(self, patch: Patch) -> Tensor:
        """float [full], once for a patch."""
        if self._looked is None or self._looked[0] is not patch:
            pixels = reduced(patch.new, patch.grid, self.facts.model.device)
            if self._reference is not None and self._reference.shape != pixels.shape[1:]:
                self.reset()
            self._looked = (patch, pixels, self._difference(pixels))
        return self._looked[2]

    def _difference(self, pixels: Tensor) -> Tensor:
        if self._reference is None:
            places = pixels.shape[2] // DETAIL * (pixels.shape[3] // DETAIL)
            return torch.ones(places)
        own = self.settings
        steady = Steady(own.reach, own.light) if own.reach or own.light > 1 else None
        return distance(pixels, self._reference, slack=own.slack, peak=own.peak, steady=steady)


class PixelGateDtd(PixelDtd):
    """The same, asked before the vision tower runs."""

    def admit(self, patch: Patch) -> bool:
        """Whether a single place has changed or is due."""
        changed = self._look(patch).cpu() >= self.threshold * self.strictness
        return bool((changed | self._due(patch)).any())


class FeatureDtd(_Ages):
    """By the cosine of projected tokens."""

    def __init__(self, settings: Dtd, facts: StreamFacts) -> None:
        super().__init__(settings, facts)
        self._reference: Tensor | None = None  # float32 [full, hidden], of unit length; 0 where nothing was kept
        self._all: TokenBlock | None = None  # the patch at hand as it came

    def reset(self) -> None:
        """Whatever comes next is new."""
        super().reset()
        self._reference = self._all = None

    def prune(self, block: TokenBlock) -> TokenBlock:
        """Leave out what has not changed."""
        if self._reference is not None and len(self._reference) != block.patch.full:
            self.reset()
        self._all = block
        if self._reference is None:
            return self._keep(block, torch.ones(len(block)))
        old = self._reference[block.tokens.slot.to(self._reference.device)]
        return self._keep(block, 1 - (unit(block.tokens.embeds) * old).sum(1))

    def note(self, block: TokenBlock) -> None:
        """What was kept is the new reference of its places."""
        self._mark(block)
        seen = self._all if self.settings.against == "previous" and self._all is not None else block
        if self._reference is None:
            hidden = seen.tokens.embeds.shape[1]
            self._reference = torch.zeros(block.patch.full, hidden, device=seen.tokens.embeds.device)
        self._reference[seen.tokens.slot.to(self._reference.device)] = unit(seen.tokens.embeds)
        self._all = None


def unit(features: Tensor) -> Tensor:
    """float32 rows of length 1."""
    return functional.normalize(features.float(), dim=1)
