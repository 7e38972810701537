"""A picture of a run's losses and validation scores, as SVG, drawn without a plotting library."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by every eye.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 230, 60, 30, 60  # of one panel, and around it
_OTHER = ("step", "stage", "lr", "seconds", "validation")
_TICKS = 4

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes with its lines by name."""

    title: str
    lines: Mapping[str, Points]
    logarithmic: bool

    def height(self, value: float) -> float:
        """Where a value stands on the vertical axis, before scaling."""
        return math.log10(max(value, 1e-6)) if self.logarithmic else value


def draw_curves(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Losses on a logarithmic axis above, validation scores below; `records` are the lines of metrics.jsonl."""
    losses: dict[str, Points] = defaultdict(list)
    scores: dict[str, Points] = defaultdict(list)
    for record in records:
        values = record.get("validation")
        into = losses if values is None else scores
        for name, value in (record if values is None else values).items():
            if name not in _OTHER and math.isfinite(value):
                into[name].append((record["step"], value))
    panels = [Panel("training loss", losses, True), Panel("validation", scores, False)]
    text = _document([p for p in panels if p.lines])
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _document(panels: Sequence[Panel]) -> str:
    width, height = LEFT + WIDTH + 150, len(panels) * (HEIGHT + GAP) + TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, top: int) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    last = max(step for step, _ in points)
    heights = [panel.height(value) for _, value in points]
    low, high = min(heights), max(heights)
    span = (high - low) or 1.0

    def at(step: float, value: float) -> tuple[float, float]:
        return LEFT + WIDTH * step / max(1, last), top + HEIGHT * (1 - (panel.height(value) - low) / span)

    parts = [_text(LEFT, top - 10, panel.title, weight="bold")]
    parts += _axes(top, last, [(low + span * i / _TICKS, i / _TICKS) for i in range(_TICKS + 1)], panel.logarithmic)
    for number, (name, line) in enumerate(panel.lines.items()):
        color = COLORS[number % len(COLORS)]
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{where}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        parts.append(_text(LEFT + WIDTH + 10, top + 14 + 16 * number, f"{name} {line[-1][1]:.3g}", color=color))
    return parts


def _axes(top: int, last: float, ticks: Iterable[tuple[float, float]], logarithmic: bool) -> list[str]:
    parts = []
    for height, share in ticks:
        y = top + HEIGHT * (1 - share)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{10**height if logarithmic else height:.2g}", anchor="end"))
    for i in range(_TICKS + 1):
        x = LEFT + WIDTH * i / _TICKS
        parts.append(_text(x, top + HEIGHT + 16, f"{last * i / _TICKS:,.0f}", anchor="middle"))
    parts.append(_text(LEFT + WIDTH / 2, top + HEIGHT + 32, "step", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", color: str = "#333", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}" font-weight="{weight}">{escape(text)}</text>'
