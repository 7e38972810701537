"""StreamWorld's table in README.md: kinds of question and distances down, ways of watching across."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamvlm.benchmarks.harness import HERE
from streamvlm.benchmarks.markdown import table
from streamvlm.benchmarks.suites.streamworld import NAMES
from streamvlm.world.kinds import KINDS

PICTURE = "docs/streamworld.svg"
# Way of watching: the key in the result and its name in the README.
WATCHERS = {
    "sink_window": "StreamVLM",
    "notes_alone": "… with notes",
    "memory": "… with memory",
    "notes": "… with both",
    "held_out": "… on looks never trained on",
    "full": "full attention",
    "afresh": "the window alone, full attention",
    "sliding": "plain sliding window",
    "last_frames": "last 4 frames",
    "uniform64": "64 frames of all so far",
    "blind": "black picture",
    "constant": "most frequent answer",
}
GROUPS = ("present", "backward", "forward")  # kinds that are compared between looks
MEASURES = (("watch F1", "false alarms per watch and hour"), ("narration F1", "false lines per minute"))


def window(report: dict[str, Any]) -> str:
    """The same of many questions, nearly all about the window; without a picture."""
    return streamworld(report, None)


def streamworld(report: dict[str, Any], root: Path | None = HERE.parent) -> str:
    """Accuracy by kind of question and distance, and by what stays visible; what it costs."""
    ways = with_far(report)
    first = next(iter(ways.values()))
    rows: list[list[str]] = []
    for group, cells in _grouped(ways).items():
        rows += [[cell, *_row(ways, cell, first)] for cell in cells]
        if len(cells) > 1:
            rows.append([f"**{group}**", "", *(_total(way, group) for way in ways.values())])
    rows += _costs(ways, report["watchings"]) if "watchings" in report else []
    text = (
        f"`{report['model']}` on streams of {report['seeds']} seeds, {report['seconds'] / 60:.0f} minutes each, at 2 "
        f"frames/s, with a window of {report['window_seconds']:g} s: accuracy in percent, ± standard deviation over "
        "streams. A distance says how far back the needed moment lies; without one, it is in the window. In "
        f"parentheses the number of questions where it is not that of the second column. {_full(report)}Ways that see "
        "the same were watched together, with all that any of them needs; times include drawing."
        f"{_far(report)}{_said(ways)}{_held_out(ways)}\n\n"
    )
    picture = f"\n![Accuracy by group of questions, all ways of watching]({PICTURE})\n"
    return text + table(["kind", "questions", *(WATCHERS[k] for k in ways)], rows) + (
        picture if root and (root / PICTURE).exists() else ""
    )  # fmt: skip


def _full(report: dict[str, Any]) -> str:
    if "full" not in report["ways"]:
        return ""
    held = report["full_capacity_tokens"]
    return f"Full attention sees the first stream only, holds {held} tokens and fails past them. "


def with_far(report: dict[str, Any]) -> dict[str, Any]:
    """The ways in the order of their columns, with what a longer stream was asked at distances beyond these."""
    ways = {key: report["ways"][key] for key in WATCHERS if key in report["ways"]}
    far = (report.get("far") or {"ways": {}})["ways"]
    known = {name for way in ways.values() for part in ("cells", "totals") for name in way[part]["official"]}
    merged = {}
    for key, way in ways.items():
        more = far.get(key, {"cells": {"official": {}}, "totals": {"official": {}}})
        merged[key] = dict(way)
        for part in ("cells", "totals"):
            added = {name: found for name, found in more[part]["official"].items() if name not in known}
            merged[key][part] = {**way[part], "official": {**way[part]["official"], **added}}
    return merged


def by_distance(name: str) -> tuple[int, str]:
    """A key to sort cells and groups by: the nearest first."""
    distance = name.partition(", ")[2]
    return (list(NAMES.values()).index(distance) if distance else 0, name)


def _grouped(ways: dict[str, Any]) -> dict[str, list[str]]:
    """Group of kinds, at a distance -> cells, in the order of the kinds."""
    found: dict[str, list[str]] = {}
    order = list(KINDS)
    cells = {cell for way in ways.values() for cell in way["cells"]["official"]}
    for cell in sorted(cells, key=lambda c: (order.index(c.partition(", ")[0]), by_distance(c))):
        kind, comma, distance = cell.partition(", ")
        found.setdefault(f"{KINDS[kind].group}{comma}{distance}", []).append(cell)
    return found


def _row(ways: dict[str, Any], cell: str, first: dict[str, Any]) -> list[str]:
    usual = first["cells"]["official"].get(cell, {"asked": 0})["asked"]
    return [f"{usual}", *(_cell(way, cell, usual) for way in ways.values())]


def _cell(way: dict[str, Any], cell: str, usual: int) -> str:
    share = way["cells"]["official"].get(cell)
    if share is None:
        return ""
    over = way["extras"]["over seeds"].get(cell)
    spread = f" ± {over['sd']:.1f}" if over is not None and way["extras"]["seeds"] > 1 else ""
    return f"{share['accuracy']:.1f}{spread}" + (f" ({share['asked']})" if share["asked"] != usual else "")


def _total(way: dict[str, Any], group: str) -> str:
    value = way["totals"]["official"].get(group)
    return "" if value is None else f"**{value:.1f}**"


def _costs(ways: dict[str, Any], watchings: list[dict[str, Any]]) -> list[list[str]]:
    """What a minute of stream takes to be watched, thoughts included, and what an answer takes then."""
    heads = ("watching, a minute: time", "… tokens read", "an answer: time", "… tokens read", "… first token, median")
    rows = [[head, ""] for head in heads]
    for key, way in ways.items():
        watching = next((one for one in watchings if key in one["ways"]), None)
        cells = [*_watching(watching, key), *_answering(way["usage"])]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    return rows


def _watching(watching: dict[str, Any] | None, way: str) -> tuple[str, str]:
    if watching is None:
        return "", ""
    if way != watching["ways"][0]:
        return (f"as {WATCHERS[watching['ways'][0]]}",) * 2
    used, minutes = watching["usage"], watching["minutes"]
    return f"{used['seconds'] / minutes:.1f} s", f"{(used['tokens_in'] + used['rows_thought']) / minutes:.0f}"


def _answering(used: dict[str, Any]) -> tuple[str, str, str]:
    if not used:
        return "", "", ""
    read = (used["tokens_in"] + used["rows_asked"]) / used["samples"]
    first = f"{1e3 * used['ttft_s']['p50']:.0f} ms" if "ttft_s" in used else ""
    return f"{1e3 * used['seconds_per_sample']:.0f} ms", f"{read:.0f}", first


def _far(report: dict[str, Any]) -> str:
    far = report.get("far")
    if not far:
        return ""
    streams = "a stream" if far["seeds"] == 1 else f"{far['seeds']} streams"
    return f" Of greater distances than these can have asks {streams} of {far['seconds'] / 60:.0f} minutes."


def _said(ways: dict[str, Any]) -> str:
    extras = [way["extras"] for way in ways.values()]
    return "".join(
        f" {name[0].upper()}{name[1:]}: {found[name]:.1f} % ({found[other]} {other})."
        for name, other in MEASURES
        for found in [one for one in extras if name in one][:1]
    )


def _held_out(ways: dict[str, Any]) -> str:
    if not {"held_out", "sink_window"} <= ways.keys():
        return ""
    seen, unseen = (ways[way]["totals"]["official"] for way in ("sink_window", "held_out"))
    shares = [f"{100 * unseen[g] / seen[g]:.0f} % ({g})" for g in seen if seen[g] and unseen.get(g) and g in GROUPS]
    return f" On looks that training never showed it keeps, of its accuracy on the others, {', '.join(shares)}."


def ages(report: dict[str, Any]) -> str:
    """Accuracy by hour of the stream, and what full attention on the window alone makes of the same questions."""
    rows = []
    for hour, one in report["ages"].items():
        cells = [_against(one["groups"].get(group)) for group in GROUPS]
        alike = f"{100 * one['alike'] / one['asked']:.1f} %"
        rows.append(["**all**" if hour == "all" else hour, f"{one['asked']}", *cells, alike])
    rows = [*rows[1:], rows[0]]
    text = (
        f"`{report['model']}` on {report['seeds']} stream{'s' if report['seeds'] > 1 else ''} of "
        f"{report['seconds'] / 3600:g} hours at 2 frames/s, asked about what its window of "
        f"{report['window_seconds']:g} s shows: accuracy in percent of the stream that has been watched from its "
        "beginning / of full attention on a stream of its own that begins with the window, and their difference with "
        "its 95 % interval (paired bootstrap over minutes of stream).\n\n"
    )
    return text + table(["hour", "questions", *GROUPS, "same answer"], rows)


def _against(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    low, high = one["interval_95"]
    return f"{one['second']:.1f} / {one['first']:.1f}, {one['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
