"""What benchmarks with a picture share: their flags, and a figure that is the same bytes for the same numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks import harness

Report = dict[str, Any]


def add_picture(parser: argparse.ArgumentParser, what: str) -> None:
    """The flags of a benchmark that can draw."""
    parser.add_argument("--picture", type=Path, help=f"draw {what} into this .svg or .png")
    parser.add_argument("--redraw", action="store_true", help="only draw --picture again, from the saved result")


def parse_with_picture(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and refuse to draw nowhere."""
    arguments = parser.parse_args(argv)
    if arguments.redraw and not arguments.picture:
        parser.error("--redraw needs --picture")
    return arguments


def conclude(
    arguments: argparse.Namespace,
    name: str,
    measure: Callable[[argparse.Namespace], Report],
    draw: Callable[[Any, Report], None],
    size: tuple[float, float],
) -> None:
    """Measure, or take the saved result; draw it on axes of `size` inches if asked to; print and keep what is new."""
    report = harness.load(harness.RESULTS / f"{name}.json") if arguments.redraw else measure(arguments)
    if arguments.picture:
        save_figure(arguments.picture, size, lambda axes: draw(axes, report))
    if not arguments.redraw:
        harness.finish(report, save=arguments.save, name=name)


def save_figure(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Write what `draw` puts on a pair of axes; folders are made."""
    import matplotlib as mpl  # here: slow to load
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "streamvlm", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
