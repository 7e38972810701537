"""The picture of accuracy against tokens kept."""

from __future__ import annotations

from typing import Any

SIZE = (8.4, 4.8)  # inches
# Okabe and Ito's colours, told apart by every eye, and a mark for each kind of stream.
STYLES = {"static": ("#0072B2", "o"), "moving": ("#D55E00", "s"), "fading": ("#009E73", "^")}


def draw_pareto(axes: Any, report: dict[str, Any]) -> None:  # noqa: ANN401
    """One mark for a composition on a kind of stream; a line joins those that nothing beats."""
    for camera in report["streams"]:
        _draw_kind(axes, camera, report["compositions"])
    axes.axvline(100 * report["most_kept"], color="#999999", linewidth=1, linestyle=":")
    axes.axhline(98, color="#999999", linewidth=1, linestyle=":")
    axes.set(xlabel="vision tokens kept, %", ylabel="accuracy against no pruning, %", xlim=(0, 102))
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.legend(frameon=False, title="camera", loc="lower right")
    axes.set_title(f"Accuracy against tokens kept ({report['model']})", loc="left", fontsize=12)


def _draw_kind(axes: Any, camera: str, compositions: dict[str, Any]) -> None:  # noqa: ANN401
    color, mark = STYLES[camera]
    points = sorted(
        (100 * c["streams"][camera]["kept"], 100 * c["streams"][camera]["accuracy_ratio"], spec)
        for spec, c in compositions.items()
        if camera in c["streams"]
    )
    axes.plot([p[0] for p in points], [p[1] for p in points], mark, color=color, label=camera, markersize=6)
    front, highest = [], -1.0
    for kept, accuracy, spec in points:
        if accuracy > highest:
            highest = accuracy
            front.append((kept, accuracy))
            if camera == "static":
                axes.annotate(spec, (kept, accuracy), textcoords="offset points", xytext=(5, -11), fontsize=8)
    axes.plot([p[0] for p in front], [p[1] for p in front], color=color, linewidth=1.2)
