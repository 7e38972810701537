"""StreamWorld's table in README.md: kinds of question and distances down, ways of watching across."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamvlm.benchmarks.harness import HERE
from streamvlm.benchmarks.markdown import table
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
    "sliding": "plain sliding window",
    "last_frames": "last 4 frames",
    "uniform64": "64 frames of all so far",
    "blind": "black picture",
    "constant": "most frequent answer",
}
GROUPS = ("present", "backward", "forward")  # kinds that are compared between looks
MEASURES = (("watch F1", "false alarms per watch and hour"), ("narration F1", "false lines per minute"))


def streamworld(report: dict[str, Any], root: Path = HERE.parent) -> str:
    """Accuracy by kind of question and distance, and by what stays visible; what it costs."""
    ways = {key: report["ways"][key] for key in WATCHERS if key in report["ways"]}
    first = next(iter(ways.values()))
    rows: list[list[str]] = []
    for group, cells in _grouped(ways).items():
        rows += [[cell, *_row(ways, cell, first)] for cell in cells]
        if len(cells) > 1:
            rows.append([f"**{group}**", "", *(_total(way, group) for way in ways.values())])
    rows += _costs(list(ways.values()))
    text = (
        f"`{report['model']}` on streams of {report['seeds']} seeds, {report['seconds'] / 60:.0f} minutes each, at 2 "
        f"frames/s, with a window of {report['window_seconds']:g} s: accuracy in percent, ± standard deviation over "
        "streams. A distance says how far back the needed moment lies; without one, it is in the window. In "
        "parentheses the number of questions where it is not that of the second column. Full attention sees the first "
        f"stream only, holds {report['full_capacity_tokens']} tokens and fails past them. Time and tokens are for a "
        f"minute of stream, questions included.{_said(ways)}{_held_out(report['ways'])}\n\n"
    )
    picture = f"\n![Accuracy by group of questions, all ways of watching]({PICTURE})\n"
    return text + table(["kind", "questions", *(WATCHERS[k] for k in ways)], rows) + (
        picture if (root / PICTURE).exists() else ""
    )  # fmt: skip


def _grouped(ways: dict[str, Any]) -> dict[str, list[str]]:
    """Group of kinds, at a distance -> cells, in the order of the kinds."""
    found: dict[str, list[str]] = {}
    order = list(KINDS)
    cells = {cell for way in ways.values() for cell in way["cells"]["official"]}
    for cell in sorted(cells, key=lambda c: (order.index(c.partition(", ")[0]), len(c), c)):
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
    spread = f" ± {way['extras']['over seeds'][cell]['sd']:.1f}" if way["extras"]["seeds"] > 1 else ""
    return f"{share['accuracy']:.1f}{spread}" + (f" ({share['asked']})" if share["asked"] != usual else "")


def _total(way: dict[str, Any], group: str) -> str:
    value = way["totals"]["official"].get(group)
    return "" if value is None else f"**{value:.1f}**"


def _costs(ways: list[dict[str, Any]]) -> list[list[str]]:
    """What a minute of stream takes where it was watched once, thoughts included, and the wait for an answer."""
    rows = [["time", ""], ["tokens read", ""], ["first token, median", ""]]
    for way in ways:
        used, minutes = way["usage"], way.get("stream_minutes", 0)
        rows[0].append(f"{used['seconds'] / minutes:.1f} s" if minutes else "")
        read = used["tokens_in"] + used.get("rows_thought", 0) if minutes else 0
        rows[1].append(f"{read / minutes:.0f}" if minutes else "")
        rows[2].append(f"{1e3 * used['ttft_s']['p50']:.0f} ms" if "ttft_s" in used else "")
    return rows


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
