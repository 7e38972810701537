"""A report as one HTML file that needs nothing else: tables, and bars drawn as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

COLORS = (
    "#2b6cb0", "#dd6b20", "#38a169", "#805ad5", "#d53f8c", "#718096", "#b7791f", "#319795", "#1a365d", "#f6ad55",
    "#a0aec0",
)  # fmt: skip
ROW, BAR, LEFT, WIDTH = 6, 11, 250, 560  # pixels: between groups, of a bar, of the names, of 100 %
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
)


def page(title: str, markdown: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """The report's Markdown (headings, paragraphs, tables and lists of one level), with a plot of `bars` after the
    first table, which it shows."""
    blocks = [_block(block) for block in markdown.split("\n\n") if block.strip()]
    first = next((place for place, block in enumerate(blocks, start=1) if "<table>" in block), len(blocks))
    body = "\n".join([*blocks[:first], plot(bars), *blocks[first:]])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def plot(bars: Mapping[str, Mapping[str, float]]) -> str:
    """Grouped horizontal bars, 0 to 100 %, as SVG: group -> series -> percent."""
    series = list(dict.fromkeys(name for group in bars.values() for name in group))
    colors = {name: COLORS[k % len(COLORS)] for k, name in enumerate(series)}
    height = 20 * len(series) + 20
    parts = [_legend(name, color, 20 * k) for k, (name, color) in enumerate(colors.items())]
    for group, values in bars.items():
        parts.append(_text(LEFT - 8, height + BAR * len(values) / 2 + 4, group, "end"))
        for k, (name, value) in enumerate(values.items()):
            parts.append(_bar(height + k * BAR, value, colors[name]))
        height += BAR * len(values) + ROW
    size = f'width="{LEFT + WIDTH + 70}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui,sans-serif">'
        f'<rect {size} fill="white"/>{"".join(parts)}</svg>'
    )


def _legend(name: str, color: str, y: float) -> str:
    return f'<rect x="{LEFT}" y="{y}" width="12" height="12" fill="{color}"/>{_text(LEFT + 18, y + 11, name)}'


def _bar(y: float, value: float, color: str) -> str:
    width = WIDTH * value / 100
    drawn = f'<rect x="{LEFT}" y="{y:g}" width="{width:.1f}" height="{BAR - 1}" fill="{color}"/>'
    return drawn + _text(LEFT + width + 4, y + BAR - 2, f"{value:.1f}")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">{escape(text)}</text>'


def _block(block: str) -> str:
    lines = block.strip("\n").split("\n")
    if lines[0].startswith("#"):
        level = len(lines[0]) - len(lines[0].lstrip("#"))
        rest = "\n".join(lines[1:])
        return f"<h{level}>{_inline(lines[0].lstrip('# '))}</h{level}>" + (_block(rest) if rest.strip() else "")
    if lines[0].startswith("|"):
        return _table([line for line in lines if line.startswith("|")])
    if lines[0].startswith("- "):
        return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines if line.startswith('- '))}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    tags = ["th", *("td" for _ in rows[1:])]
    drawn = ["".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in drawn)}</table>"


def _inline(text: str) -> str:
    bold = escape(text).split("**")
    return "".join(f"<b>{part}</b>" if k % 2 else part for k, part in enumerate(bold))
