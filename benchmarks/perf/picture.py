"""The picture of step time against frame number."""

from __future__ import annotations

from typing import Any

SIZE = (8.4, 4.4)  # inches
# What a policy is called in the picture, and its colour (Okabe and Ito's, told apart by every eye).
STYLES = {
    "sink_window": ("StreamVLM: sink + window", "#0072B2"),
    "full": ("full attention", "#D55E00"),
    "sliding_recompute": ("window, recomputed", "#CC79A7"),
    "last_frames": ("last 4 frames,\nrecomputed", "#009E73"),
}


def draw_curves(axes: Any, report: dict[str, Any]) -> None:  # noqa: ANN401
    """Milliseconds a step against frame number, both on log scales, one line a policy, named at its end."""
    for policy, result in report["policies"].items():
        _draw_curve(axes, policy, result)
    _dress(axes, report)


def _draw_curve(axes: Any, policy: str, result: dict[str, Any]) -> None:  # noqa: ANN401
    label, color = STYLES[policy]
    frames, step = zip(*result["points"], strict=True)
    axes.plot(frames, step, color=color, linewidth=2.2)
    full = policy == "full" and "capacity" in result["ended_by"]
    axes.plot(frames[-1], step[-1], "X" if full else "o", color=color, markersize=9 if full else 5)
    note = f"{label},\ncache full at {result['frames']:,}" if full else label
    beside = full or "\n" in label
    place: dict[str, Any] = {"xytext": (9, 0), "va": "center"} if beside else {"xytext": (0, 7), "ha": "right"}
    axes.annotate(note, (frames[-1], step[-1]), textcoords="offset points", color=color, **place)


def _dress(axes: Any, report: dict[str, Any]) -> None:  # noqa: ANN401
    from matplotlib.ticker import FuncFormatter  # here: slow to load

    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.margins(y=0.09)
    axes.set(xscale="log", yscale="log", xlabel="frame", ylabel="ms per step")
    longest = max(result["frames"] for result in report["policies"].values())
    axes.set_xlim(1, 1.3 * longest)
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter("")
    axes.grid(which="major", color="#dddddd", linewidth=0.8)
    window = f"{report['window_seconds']:g} s window at {report['fps']:g} frames/s"
    axes.set_title(f"Cost of seeing one more frame ({report['model']}, {window})", loc="left", fontsize=12)
