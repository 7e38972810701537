"""StreamWorld under every policy, for the README: what stays visible decides what can be answered.

Each policy is a run of `streamvlm bench run streamworld` in a folder of its own below `--out`, and goes on there after
a kill. Beside the policies: one with memory on disk, the model shown nothing, and the most frequent answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core import commands, journal
from streamvlm.benchmarks.core.commands import RunOptions
from streamvlm.benchmarks.core.html import plot
from streamvlm.benchmarks.harness import HERE, finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.suites.streamworld import Exams, StreamWorld
from streamvlm.config import Config, SamplingConfig, WatchConfig
from streamvlm.world.exam import ASKED

PICTURE = HERE.parent / "docs" / "streamworld.svg"
CAPACITY = 65536  # tokens of full attention: about 20 minutes of `tiny` at two frames a second
LONGEST = 24  # tokens of an answer
# Way of watching -> (protocol, what is changed of it)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "sink_window": ("stream", {}),
    "memory": ("memory", {}),
    "notes_alone": ("notes_alone", {}),
    "notes": ("notes", {}),
    "full": ("stream", {"policy": "full"}),
    "sliding": ("stream", {"policy": "sliding"}),
    "last_frames": ("stream", {"policy": "last_frames"}),
    "blind": ("blind", {}),
    "constant": ("constant", {}),
}


def one_way(benchmark: StreamWorld, way: str, out: Path, config: Config) -> dict[str, Any]:
    """A run, or the rest of one; its scores."""
    protocol, changes = WAYS[way]
    # Watches and narration run by themselves: they are measured once, on our own policy.
    kept = benchmark if way in ("sink_window", "constant") else benchmark.adjusted(watches=0, narrated=False)
    options = RunOptions(protocol, out=out / way, overrides=tuple(changes.items()))
    commands.run_benchmark(kept, options, config)
    found = commands.summary(kept, None, out / way)
    log.info("%s: %s", way, found["totals"]["official"])
    run = journal.load(out / way)
    return {k: found[k] for k in ("totals", "cells", "extras", "counts", "usage")} | {"starts": len(run.starts)}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every way that was asked for."""
    model = begin(arguments)
    made = {f.name: getattr(arguments, f.name) for f in fields(Exams)}
    exams = Exams(**made | {"kinds": tuple(arguments.kinds)})
    watch = WatchConfig(full_capacity_tokens=CAPACITY)
    config = Config(model, watch, SamplingConfig(max_new_tokens=LONGEST))
    benchmark = StreamWorld(exams)
    ways = {way: one_way(benchmark, way, arguments.out, config) for way in arguments.ways}
    return {
        "model": arguments.model,
        "threads": arguments.threads,
        **asdict(exams),
        "seconds": exams.seconds,
        "window_seconds": watch.window_seconds,
        "full_capacity_tokens": CAPACITY,
        "ways": ways,
    }


def bars(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Cell -> way -> percent, for the picture."""
    found: dict[str, dict[str, float]] = {}
    for way, scores in report["ways"].items():
        for cell, share in scores["cells"]["official"].items():
            found.setdefault(cell, {})[way] = share["accuracy"]
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("StreamWorld under every policy.")
    usual = Exams()
    parser.add_argument("--seed-base", type=int, default=usual.seed_base, help="first seed")
    parser.add_argument("--seeds", type=positive, default=usual.seeds, help="streams")
    parser.add_argument("--per-cell", type=positive, default=usual.per_cell, help="questions per kind, distance, seed")
    parser.add_argument("--longest", type=float, default=usual.longest, help="longest distance, seconds")
    parser.add_argument("--watches", type=int, default=usual.watches, help="conditions to be told of, per seed")
    parser.add_argument("--narrated", action=argparse.BooleanOptionalAction, default=usual.narrated, help="narrate too")
    parser.add_argument("--tail", type=float, default=usual.tail, help="seconds after the longest distance")
    parser.add_argument("--kinds", nargs="+", choices=ASKED, default=list(ASKED), help="of question")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which to run")
    parser.add_argument("--out", type=Path, default=Path("runs/streamworld"), help="folder of the runs")
    parser.add_argument("--picture", type=Path, help=f"SVG of the accuracies; docs/{PICTURE.name} for the README")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    found = measure(arguments)
    if arguments.picture:
        arguments.picture.write_text(plot(bars(found)) + "\n", encoding="utf-8")
    finish(found, save=arguments.save, name="streamworld")


if __name__ == "__main__":
    main()
