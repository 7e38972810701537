"""Does it still see as well after hours? The window of an old stream against full attention on its frames alone.

Every kind of question is asked at every age of a stream, about what the window shows. A model that has watched from
the beginning has the window, its sinks, and positions far from where it began; beside it each question gets a stream of
its own which begins with the window's first frame (seen without the one before it) and forgets nothing. Answers are
compared one by one, hour by hour. Each is a run of StreamWorld in a folder of its own below `--out`
(streamvlm.benchmarks.streamworld), and goes on after a kill; two processes share the work with `--ways sink_window` and
`--ways afresh`, and `--collect` makes the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from streamvlm.benchmarks import streamworld
from streamvlm.benchmarks.core import journal
from streamvlm.benchmarks.core.compare import compare
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.measure import make_parser, positive
from streamvlm.benchmarks.suites.streamworld import Exams, StreamWorld
from streamvlm.world.exam import ASKED as KINDS

WAYS = ("afresh", "sink_window")
ASKED = {"longest": 0.0, "watches": 0, "narrated": False}  # the window only, and nothing that runs by itself
HOUR = 3600.0
CAPACITY = 4096  # tokens: more than a window holds
TOGETHER = 60.0  # seconds of stream whose questions are about the same, and no evidence of their own


def by_age(made: Exams, runs: Mapping[str, Mapping[str, Result]]) -> dict[str, Any]:
    """Hour of the stream, and "all" -> group of kinds -> accuracy of both, difference and its interval, in percent."""
    benchmark = StreamWorld(made)
    samples = [replace(s, video=f"{s.video}/{s.time // TOGETHER:.0f}") for s in benchmark.load(Path())]
    missing = {way: sum(s.id not in runs[way] for s in samples) for way in WAYS}
    if any(missing.values()):
        raise SystemExit(f"not all questions have been asked in both ways yet; missing: {missing}")
    hours: dict[str, list[Sample]] = {"all": samples}
    for sample in samples:
        hours.setdefault(f"{1 + sample.time // HOUR:.0f}", []).append(sample)
    found = {}
    for hour, its in hours.items():
        pairs = [[runs[way][s.id] for way in WAYS] for s in its]
        alike = sum(one.text == other.text and one.status == other.status == "answered" for one, other in pairs)
        totals = {one.name: one.to_json() for one in compare(benchmark, its, *(runs[way] for way in WAYS))}
        found[hour] = {"asked": len(its), "alike": alike, "groups": totals}
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The runs, and how they differ with age once both are complete."""
    found = streamworld.measure(arguments)
    if found["ways"].keys() == set(WAYS):
        runs = {way: journal.load(arguments.out / way).results for way in WAYS}
        made = Exams(**{field.name: found[field.name] for field in fields(Exams)})
        found["ages"] = by_age(made, runs)
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Accuracy by the age of a stream, against full attention on the window alone.")
    usual = Exams()
    parser.add_argument("--seed-base", type=int, default=usual.seed_base, help="first seed")
    parser.add_argument("--seeds", type=positive, default=1, help="streams")
    parser.add_argument("--per-cell", type=positive, default=usual.per_cell, help="questions per kind and seed")
    parser.add_argument("--hours", type=float, default=6.0, help="length of each stream")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which to run")
    parser.add_argument("--out", type=Path, default=Path("runs/ages"), help="folder of the runs")
    streamworld.add_run_options(parser)
    parser.set_defaults(kinds=KINDS, full_capacity=CAPACITY, **ASKED)
    arguments = parser.parse_args(argv)
    arguments.tail = HOUR * arguments.hours
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    streamworld.report(measure(arguments), arguments, "ages")


if __name__ == "__main__":
    main()
