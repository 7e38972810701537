"""Right and wrong counted: per task, per rule, with denominators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

OFFICIAL = "official"  # the benchmark's own rule, applied to the normalised answers we export
RAW = "raw"  # the same rule, applied to the model's words as they came
STRICT = "strict"  # the whole answer must be the bare letter, integer, Yes/No or word
RULES = {
    OFFICIAL: "the benchmark's own rule on the answers as exported (normalised)",
    RAW: "the benchmark's own rule on the model's words as they came",
    STRICT: "only an answer that is nothing but the right letter, integer, Yes/No or word",
}
Totals = Callable[["Mapping[str, Share]"], dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What one sample earns under one rule."""

    rule: str
    task: str
    right: float  # 0 to 1

    def __post_init__(self) -> None:
        if not 0 <= self.right <= 1:
            raise ValueError(f"a mark is 0 to 1, got {self.right}")


@dataclass(frozen=True, slots=True)
class Share:
    """So much right of so many asked."""

    right: float = 0.0
    asked: int = 0

    @property
    def accuracy(self) -> float | None:
        """0 to 1; None when nothing was asked."""
        return self.right / self.asked if self.asked else None

    def __add__(self, other: Share) -> Share:
        return Share(self.right + other.right, self.asked + other.asked)

    def to_json(self) -> dict[str, Any]:
        """Accuracy in percent, with what it is of."""
        return {"accuracy": percent(self.accuracy), "right": _whole(self.right), "asked": self.asked}


@dataclass(frozen=True, slots=True)
class Scores:
    """All cells and totals of a run."""

    benchmark: str
    average: str  # what the totals are averages of
    cells: Mapping[str, Mapping[str, Share]]  # rule -> task -> share
    totals: Mapping[str, Mapping[str, float | None]]  # rule -> name -> 0 to 1
    counts: Mapping[str, int]  # samples, answered, failed, missing
    extras: Mapping[str, Any]  # what is no accuracy: balanced accuracy, F1, unparsable judgements

    def to_json(self) -> dict[str, Any]:
        """Percentages, and every denominator."""
        return {
            "benchmark": self.benchmark,
            "average": self.average,
            "rules": {rule: RULES[rule] for rule in self.cells if rule in RULES},
            "counts": dict(self.counts),
            "totals": {rule: {k: percent(v) for k, v in found.items()} for rule, found in self.totals.items()},
            "cells": {rule: {task: s.to_json() for task, s in found.items()} for rule, found in self.cells.items()},
            **({"extras": dict(self.extras)} if self.extras else {}),
        }


def tally(marks: Iterable[Mark]) -> dict[str, dict[str, Share]]:
    """rule -> task -> share, both in order of appearance."""
    cells: dict[str, dict[str, Share]] = {}
    for mark in marks:
        tasks = cells.setdefault(mark.rule, {})
        tasks[mark.task] = tasks.get(mark.task, Share()) + Share(mark.right, 1)
    return cells


def micro(shares: Iterable[Share]) -> float | None:
    """Over all questions together."""
    return sum(shares, Share()).accuracy


def macro(values: Iterable[float | None]) -> float | None:
    """The unweighted mean; None as soon as one of them is missing, or there is none."""
    found = list(values)
    known = [v for v in found if v is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None


def f1(hits: int, due: int, made: int) -> float:
    """The harmonic mean of recall and precision, 0 to 1: `hits` of what was `due`, and of what was `made`."""
    return 2 * hits / (due + made) if due + made else 0.0


def percent(share: float | None) -> float | None:
    """In percent, to two digits."""
    return None if share is None else round(100 * share, 2)


def _whole(right: float) -> float | int:
    return int(right) if right == int(right) else round(right, 4)
