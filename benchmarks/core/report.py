"""A report of several runs of one benchmark, with the baselines that keep everybody honest beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core import journal
from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.commands import BASELINES, answers, as_run, asked_of, load
from streamvlm.benchmarks.core.journal import Run
from streamvlm.benchmarks.core.protocol import BASELINES as ALL_BASELINES
from streamvlm.benchmarks.core.records import Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, RULES, STRICT, Scores, Share
from streamvlm.benchmarks.core.usage import usage
from streamvlm.benchmarks.markdown import table


@dataclass(frozen=True, slots=True)
class Column:
    """One run, or one baseline without a model."""

    name: str
    scores: Scores
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report says, before it is Markdown or HTML."""

    benchmark: Benchmark
    columns: tuple[Column, ...]
    absent: tuple[str, ...]  # baselines that were not run


def gather(benchmark: Benchmark, annotations: Path | None, runs: Sequence[Path]) -> Report:
    """Score every run and the baselines without a model, on the samples of the first run.

    Raises:
        ValueError: there is no run, or the runs are of different samples.
    """
    if not runs:
        raise ValueError("a report needs at least one run's folder")
    benchmark = as_run(benchmark, runs[0])
    samples = asked_of(load(benchmark, annotations), runs[0])
    columns = [_column(benchmark, samples, path, runs[0]) for path in runs]
    there = {c.run.stamp["protocol"]["name"] for c in columns if c.run}
    columns += [c for c in _guesses(benchmark, samples) if c.name not in there]
    usual = benchmark.protocols()
    absent = tuple(p.name for p in ALL_BASELINES if p.name in usual and p.name not in there | {"constant"})
    return Report(benchmark, tuple(columns), absent)


def _guesses(benchmark: Benchmark, samples: Sequence[Sample]) -> list[Column]:
    """What can be had without a model: the constant answers, and a blind guess where that is something else."""
    constant, blind = (benchmark.score(samples, answers(benchmark, samples, name)) for name in BASELINES)
    found = [Column("constant", constant)]
    return found if blind.cells == constant.cells else [*found, Column("blind, no model", blind)]


def _column(benchmark: Benchmark, samples: Sequence[Sample], path: Path, first: Path) -> Column:
    run, reference = journal.load(path), journal.load(first)
    for key in ("benchmark", "annotations", "settings", "samples"):
        if run.stamp.get(key) != reference.stamp.get(key):
            raise ValueError(
                f"{path} and {first} differ in {key}: {run.stamp.get(key)!r}, {reference.stamp.get(key)!r}"
            )
    model = run.stamp["model"]["model"] if run.stamp["model"] else ""
    name = f"{Path(model).name}, {run.stamp['protocol']['name']}" if model else run.stamp["protocol"]["name"]
    return Column(name, benchmark.score(samples, run.results), run)


def markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"# {report.benchmark.title}", "", _preface(report), "## Official score", "", _accuracy(report, OFFICIAL)]
    if any(STRICT in c.scores.cells for c in report.columns):
        parts += ["## Strict score", "", f"{RULES[STRICT][0].upper()}{RULES[STRICT][1:]}.", ""]
        parts += [_accuracy(report, STRICT)]
    parts += _other_measures(report)
    parts += ["## Cost", "", _costs(report), "## How it was run", "", _stamps(report)]
    return "\n".join(parts)


def _preface(report: Report) -> str:
    lines = [f"Average: {report.benchmark.average}.", f"Annotations and videos: {report.benchmark.home}."]
    if not report.benchmark.official:
        lines.append("The benchmark's own scorer cannot be run; these scores are ours and not official.")
    if report.absent:
        lines.append(f"Baselines that were not run: {', '.join(report.absent)}.")
    for column in report.columns:
        counts = column.scores.counts
        if counts["failed"] or counts["missing"]:
            lines.append(
                f"{column.name}: {counts['failed']} of {counts['samples']} samples failed and {counts['missing']} have "
                "no result; both count as wrong."
            )
    return "\n\n".join(lines) + "\n"


def _accuracy(report: Report, rule: str) -> str:
    names = list(dict.fromkeys(t for c in report.columns for t in c.scores.cells.get(rule, {})))
    totals = list(dict.fromkeys(t for c in report.columns for t in c.scores.totals.get(rule, {})))
    rows = [[task, *(_share(c.scores.cells.get(rule, {}).get(task)) for c in report.columns)] for task in names]
    rows += [
        [f"**{name}**", *(f"**{_percent(c.scores.totals.get(rule, {}).get(name))}**" for c in report.columns)]
        for name in totals
    ]
    return table(["task", *(c.name for c in report.columns)], rows)


def _other_measures(report: Report) -> list[str]:
    extras = [_flat(c.scores.extras) for c in report.columns]
    names = list(dict.fromkeys(name for found in extras for name in found))
    if not names:
        return []
    rows = [[name, *(found.get(name, "") for found in extras)] for name in names]
    return ["## Other measures", "", table(["measure", *(c.name for c in report.columns)], rows)]


def _flat(extras: Mapping[str, Any]) -> dict[str, str]:
    """Measure -> value; one that is made of several, or of a mean and its spread, in its parts."""
    found = {}
    for name, value in extras.items():
        if not isinstance(value, Mapping):
            found[name] = f"{value}"
        elif value.keys() == {"mean", "sd"}:
            found[name] = f"{value['mean']} ± {value['sd']}"
        else:
            found |= {f"{name}: {part}": text for part, text in _flat(value).items()}
    return found


def _costs(report: Report) -> str:
    rows = []
    for column in report.columns:
        used = usage(column.run) if column.run else {}
        if used:
            wait = (
                f"{1e3 * used['ttft_s']['p50']:.0f} / {1e3 * used['ttft_s']['p99']:.0f} ms" if "ttft_s" in used else ""
            )
            counts = [f"{used[k]:,}" for k in ("frames", "tokens_in", "tokens_out")]
            rows.append([column.name, used["device"], f"{used['seconds']:.0f} s", *counts, wait])
    head = ["run", "device", "time", "frames", "tokens read", "tokens written", "first token, p50 / p99"]
    return table(head, rows) if rows else "No run has costs.\n"


def _stamps(report: Report) -> str:
    lines = []
    for column in report.columns:
        if column.run is None:
            lines.append(f"- {column.name}: no model")
            continue
        stamp, last = column.run.stamp, column.run.starts[-1]
        protocol = ", ".join(f"{k} {v}" for k, v in stamp["protocol"].items() if v not in (None, False, [], ""))
        where = last["machine"]["gpu"] or last["machine"]["cpu"]
        data = stamp["annotations"]
        source = f"annotations {data['name']} {data['sha256'][:12]}" if data else f"made of {stamp['settings']}"
        lines.append(
            f"- {column.name}: {protocol}; {source}; prompts "
            f"{stamp['prompts_sha256'][:12]}; commit {(last['git']['commit'] or 'none')[:10]}; {where}; {last['date']}"
        )
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The scores of every column."""
    return {c.name: {**c.scores.to_json(), "usage": usage(c.run) if c.run else {}} for c in report.columns}


def bars(report: Report) -> Mapping[str, Mapping[str, float]]:
    """Task or total -> column -> percent, for the plot."""
    found: dict[str, dict[str, float]] = {}
    for column in report.columns:
        for task, share in column.scores.cells.get(OFFICIAL, {}).items():
            found.setdefault(task, {})[column.name] = 100 * (share.accuracy or 0.0)
        for name, value in column.scores.totals.get(OFFICIAL, {}).items():
            if value is not None:
                found.setdefault(name, {})[column.name] = 100 * value
    return found


def _share(share: Share | None) -> str:
    return "" if share is None or not share.asked else f"{_percent(share.accuracy)} ({share.right:g}/{share.asked})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"
