"""The table of README.md about what memory brings back."""

from __future__ import annotations

from typing import Any

from streamvlm.benchmarks.markdown import table


def recall(report: dict[str, Any]) -> str:
    """Whether what a question needs was brought back and the answer right, by method, number of blocks, distance."""
    found = report["distances"]
    rows = [_bound("in the window", "in_window", found), _bound("forgotten", "forgotten", found)]
    for name, first in next(iter(found.values()))["methods"].items():
        cells = [name.replace("@", ", "), f"{first['over_everything']['tokens']:.0f}"]
        for one in (distance["methods"][name] for distance in found.values()):
            cells += [_both(one["as_asked"]), f"{_both(one['over_everything'])}, chance {100 * one['chance']:.1f} %"]
        rows.append(cells)
    shares = ", ".join(
        f"{100 * best['accuracy_over_window']:.0f} % {float(distance) / 60:g} min back (`{best['method']}`)"
        for distance, best in report["claim"]["best"].items()
    )
    asked = "/".join(str(one["in_window"]["asked"]) for one in found.values())
    text = (
        f"`{report['model']}` at {report['fps']:g} frame/s, {asked} questions: the needed block brought back / the "
        "answer right. Questions name an earlier moment by the clock; they are asked as they are, and over everything "
        "stored, where their time does not narrow the search and only what the method sees in the blocks can help. "
        f"Of what the same model reaches with what it needs in the window, the best method as asked reaches {shares}."
        "\n\n"
    )
    heads = [f"{float(d) / 60:g} min back{way}" for d in found for way in ("", ", over everything")]
    return text + table(["method, k", "tokens loaded", *heads], rows)


def _bound(name: str, key: str, found: dict[str, Any]) -> list[str]:
    cells = [name, ""]
    for one in found.values():
        cells += [f"- / {_percent(one[key]['right'], one[key]['asked'])}", ""]
    return cells


def _both(cell: dict[str, Any]) -> str:
    return f"{_percent(cell['found'], cell['asked'])} / {_percent(cell['right'], cell['asked'])}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
