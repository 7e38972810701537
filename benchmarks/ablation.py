"""Do notes earn their place? The window, with notes, with blocks from disk, with both, and the last four frames.

Asked is what left the window long ago, by the time it happened at. Each is a run of StreamWorld in a folder of its own
below `--out` (streamvlm.benchmarks.streamworld), and goes on there after a kill. The first four share one watching.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from streamvlm.benchmarks import streamworld
from streamvlm.benchmarks.measure import make_parser, positive
from streamvlm.benchmarks.suites.streamworld import Exams

WAYS = ("sink_window", "notes_alone", "memory", "notes", "last_frames", "sliding", "uniform64", "blind", "constant")
ASKED = {"kinds": ("episode",), "watches": 0, "narrated": False}  # all else runs without being asked


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("What notes and blocks from disk are worth, and what they cost.")
    usual = Exams()
    parser.add_argument("--seed-base", type=int, default=usual.seed_base, help="first seed")
    parser.add_argument("--seeds", type=positive, default=usual.seeds, help="streams")
    parser.add_argument("--per-cell", type=positive, default=40, help="questions per distance and seed")
    parser.add_argument(
        "--longest", type=float, default=usual.longest, help="longest distance in seconds: 60, 600, 3600 or 21600"
    )
    parser.add_argument("--tail", type=float, default=usual.tail, help="seconds after the longest distance")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which to run")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the runs")
    streamworld.add_run_options(parser)
    return parser.parse_args(argv, argparse.Namespace(**ASKED))


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    streamworld.report(streamworld.measure(arguments), arguments, "ablation")


if __name__ == "__main__":
    main()
