"""Is one run better than another? Paired bootstrap over videos, since questions about one video are not independent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, Share, percent, tally

ROUNDS = 2000
LEVEL = 0.95
Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """One total of two runs. All from 0 to 1; positive means that the second is better."""

    name: str
    first: float
    second: float
    low: float  # of the interval of the difference
    high: float
    p: float  # two-sided: twice the smaller share of resamples on either side of no difference

    def to_json(self) -> dict[str, Any]:
        """Percentages and points."""
        return {
            "total": self.name,
            "first": percent(self.first),
            "second": percent(self.second),
            "difference": percent(self.second - self.first),
            "interval_95": [percent(self.low), percent(self.high)],
            "p": round(self.p, 4),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Right answers of both runs and questions, each [videos, tasks]."""

    tasks: tuple[str, ...]
    first: Table
    second: Table
    asked: Table


def compare(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    first: Mapping[str, Result],
    second: Mapping[str, Result],
    *,
    rule: str = OFFICIAL,
    rounds: int = ROUNDS,
) -> list[Difference]:
    """Every total of two runs on the same samples, with the interval of its difference (Efron's percentile bootstrap).

    A sample that has a result in neither run is left out; one that has a result in one of them counts as wrong in
    the other.

    Raises:
        ValueError: the runs have no sample in common.
    """
    samples = [s for s in samples if s.id in first or s.id in second]
    if not {s.id for s in samples} & first.keys() & second.keys():
        raise ValueError("the two runs have no sample in common")
    sums = _sums(benchmark, samples, first, second, rule)
    drawn = np.random.default_rng(0).multinomial(len(sums.asked), np.full(len(sums.asked), 1 / len(sums.asked)), rounds)
    weights = np.vstack([np.ones(len(sums.asked)), drawn])  # the first round is the sample itself
    one = _totals(benchmark, sums, weights @ sums.first, weights @ sums.asked)
    two = _totals(benchmark, sums, weights @ sums.second, weights @ sums.asked)
    return [_difference(name, one[name], two[name]) for name in one if not np.isnan(one[name][0])]


def _sums(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    first: Mapping[str, Result],
    second: Mapping[str, Result],
    rule: str,
) -> _Sums:
    videos = {name: k for k, name in enumerate(dict.fromkeys(s.video for s in samples))}
    marked = [(videos[s.video], _marks(benchmark, s, first, rule), _marks(benchmark, s, second, rule)) for s in samples]
    tasks = tuple(dict.fromkeys(task for _, marks, _ in marked for task in marks))
    one, two, asked = (np.zeros((len(videos), len(tasks))) for _ in range(3))
    for video, of_first, of_second in marked:
        for task, share in of_first.items():
            column = tasks.index(task)
            one[video, column] += share.right
            two[video, column] += of_second[task].right
            asked[video, column] += share.asked
    return _Sums(tasks, one, two, asked)


def _marks(benchmark: Benchmark, sample: Sample, found: Mapping[str, Result], rule: str) -> Mapping[str, Share]:
    result = found.get(sample.id) or Result(sample.id, "missing")
    return tally(benchmark.marks(sample, result)).get(rule, {})


def _totals(benchmark: Benchmark, sums: _Sums, right: Table, asked: Table) -> dict[str, Table]:
    """Each total in each round; NaN where a round has drawn none of a task."""
    found: dict[str, list[float]] = {}
    for rights, counts in zip(right, asked, strict=True):
        shares = {t: Share(float(r), int(n)) for t, r, n in zip(sums.tasks, rights, counts, strict=True)}
        for name, value in benchmark.totals(shares).items():
            found.setdefault(name, []).append(np.nan if value is None else value)
    return {name: np.array(values) for name, values in found.items()}


def _difference(name: str, one: Table, two: Table) -> Difference:
    drawn = (two - one)[1:]
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = min(1.0, 2 * min(float(np.mean(drawn <= 0)), float(np.mean(drawn >= 0))))
    return Difference(name, float(one[0]), float(two[0]), float(low), float(high), p)
