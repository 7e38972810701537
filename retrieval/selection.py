"""From scores to the blocks that are loaded: how many, within which budget, in which order.

    candidates → drop what the window still holds → best first → rule → budget → time order

A rule says how far down the ranking to go: `TopK`, or `Mass`, which takes as many as the scores call for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.shard import Span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block that was found, with what loading it costs."""

    block: int
    score: float
    start: float  # seconds
    stop: float
    tokens: int
    extent: int  # positions it takes


def candidates(hits: Hits, cost: Callable[[int], tuple[int, int]], row: int = 0) -> list[Candidate]:
    """One row of `hits` with what the store says of each block: `cost` gives its (tokens, extent)."""
    columns = (hits.blocks, hits.scores, hits.starts, hits.stops)
    found = zip(*(column[row].tolist() for column in columns), strict=True)
    return [Candidate(block, score, start, stop, *cost(block)) for block, score, start, stop in found]


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be loaded at most. None: no limit."""

    tokens: int | None = None
    positions: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("positions", self.positions)):
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}, must be at least 0")


class Rule(Protocol):
    """How many of the ranked candidates are wanted."""

    def count(self, scores: Sequence[float]) -> int:
        """How many, of `scores` in descending order."""


@dataclass(frozen=True, slots=True)
class TopK:
    """The k best (ReKV: 64)."""

    k: int = 64

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}, must be at least 1")

    def count(self, scores: Sequence[float]) -> int:
        """At most k."""
        return min(self.k, len(scores))


@dataclass(frozen=True, slots=True)
class Mass:
    """As few as hold `share` of the softmax of all scores: V-Rex's cumulative threshold (ReSV, arXiv 2512.12284).

    One clear winner is loaded alone; where nothing stands out, many are. `temperature` divides scores: with
    heads · sqrt(head_dim) they are mean attention logits. ReSV does this per layer and head.
    """

    share: float = 0.9
    temperature: float = 1.0
    most: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, must be above 0 and at most 1")
        if not self.temperature > 0 or self.most < 1:
            raise ValueError(f"temperature is {self.temperature}, must be above 0; most is {self.most}, at least 1")

    def count(self, scores: Sequence[float]) -> int:
        """The smallest number whose softmax mass reaches `share`, and at most `most`."""
        weights = [math.exp((score - scores[0]) / self.temperature) for score in scores]
        wanted = self.share * math.fsum(weights)
        enough = (n for n, mass in enumerate(accumulate(weights), start=1) if mass >= wanted * (1 - 1e-9))
        return min(self.most, next(enough, len(scores)))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The blocks to load, in time order."""

    candidates: tuple[Candidate, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""
        return sum(c.tokens for c in self.candidates)

    @property
    def positions(self) -> int:
        """Positions they take, placed one after the other."""
        return sum(c.extent for c in self.candidates)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The stretches of stream time they cover."""
        return merged((c.start, c.stop) for c in self.candidates)


def select(
    candidates: Iterable[Candidate], rule: Rule, *, budget: Budget | None = None, window: Sequence[Span] = ()
) -> Chosen:
    """Which of `candidates` to load, whatever their order.

    Blocks wholly inside `window`, the spans that attention sees anyway, are left out before the rule counts. A block
    that does not fit what is left of the budget is passed over and smaller ones may follow. Ties go to the newer one.
    """
    inside = merged(window)
    ranked = [c for c in candidates if not any(a <= c.start and c.stop <= b for a, b in inside)]
    ranked.sort(key=lambda c: (-c.score, -c.start, -c.block))
    ranked = ranked[: rule.count([c.score for c in ranked])] if ranked else []
    budget = budget or Budget()
    tokens = math.inf if budget.tokens is None else budget.tokens
    positions = math.inf if budget.positions is None else budget.positions
    taken = []
    for candidate in ranked:
        if candidate.tokens <= tokens and candidate.extent <= positions:
            taken.append(candidate)
            tokens -= candidate.tokens
            positions -= candidate.extent
    return Chosen(tuple(sorted(taken, key=lambda c: (c.start, c.block))))


def merged(spans: Iterable[Span], gap: float = 1e-3) -> tuple[Span, ...]:
    """Spans in order, with those that overlap or are at most `gap` seconds apart made one."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return tuple(joined)


def runs(chosen: Chosen, gap: float = 1e-3) -> tuple[tuple[Candidate, ...], ...]:
    """The chosen blocks in runs of neighbours, each to be read, and shown, as one."""
    if not chosen.candidates:
        return ()
    cuts = [i for i, (a, b) in enumerate(pairwise(chosen.candidates), start=1) if b.start > a.stop + gap]
    edges = [0, *cuts, len(chosen.candidates)]
    return tuple(chosen.candidates[a:b] for a, b in pairwise(edges))
