"""Benchmarks whose answers are free text: a judge has to say how good they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.judge import Case, Judge, Verdict, bias
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.scores import Mark, Scores, Share, tally

JUDGED = "judged"  # the rule; points are those of the judge that was given


class JudgedBenchmark(Benchmark):
    """Scored by `judge`; without one, `score` only counts what was answered."""

    official = False
    rivals = False  # whether answers are compared with another system's

    @abstractmethod
    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """(task, what the judge makes of it) for everything that is judged about one sample."""

    def constant(self, sample: Sample) -> Result:
        """Says nothing."""
        return Result(sample.id, "answered", "")

    def score(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> Scores:
        """Counts alone: right and wrong need a judge."""
        found = super().score(samples, results)
        return replace(found, cells={}, totals={}, extras={"not judged": "give --judge-url and --judge-model"})

    def judge(
        self,
        samples: Sequence[Sample],
        results: Mapping[str, Result],
        judge: Judge,
        rivals: Mapping[str, Result] | None = None,
    ) -> Scores:
        """Ask the judge about every answer. What failed, and what has no result, earns nothing.

        Raises:
            ValueError: the benchmark compares with another system's answers, and there are none.
        """
        if self.rivals and not rivals:
            raise ValueError(f"{self.name} compares with another system: give its answers with --against")
        base = super().score(samples, results)
        judged = [
            pair
            for s in samples
            for pair in self.verdicts(
                Case(s, results.get(s.id) or Result(s.id, "missing"), (rivals or {}).get(s.id)), judge
            )
        ]
        cells = tally(Mark(JUDGED, task, verdict.points) for task, verdict in judged)
        extras: dict[str, Any] = {**self.summary(samples, results), **bias([v for _, v in judged])}
        totals = {rule: self.totals(tasks) for rule, tasks in cells.items()}
        return replace(base, cells=cells, totals=totals, extras=extras)

    def summary(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """Measures beside the judge's."""
        return {}

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """The mean over everything judged."""
        return super().totals(tasks)
