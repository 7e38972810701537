"""The tables of README.md about the chat's page and about decoding."""

from __future__ import annotations

from typing import Any

from streamvlm.benchmarks.markdown import table


def chat(report: dict[str, Any]) -> str:
    """How fast frames come from the page, and what the app itself costs."""
    engine, cache = report["to_engine_s"], report["to_cache_worst_of_a_second_ms"]
    written = sum(report["answers"].values())
    rows = [
        ["frames a second that reached the engine", f"{report['fps_reached']:.1f} of {report['fps']:g} asked for"],
        ["from the page to the engine", f"median {1000 * engine['p50']:.0f} ms, p95 {1000 * engine['p95']:.0f} ms"],
        ["into the cache, slowest of each second", f"median {cache['p50']:.0f} ms, p99 {cache['p99']:.0f} ms"],
        ["the app itself, model apart", f"{100 * report['app_cores']:.1f} % of a core"],
        ["the model", f"{100 * report['model_cores']:.0f} % of a core"],
        ["frames dropped", str(report["frames_dropped"])],
    ]
    wide, high = report["picture"]
    text = (
        f"Chromium with a fake webcam of {wide}x{high} pixels on the same machine, {report['seconds']:g} s, "
        f"{report['answers_open']:g} answers open on average, {written} in all.\n\n"
    )
    return text + table(["", "measured"], rows)


def decode(report: dict[str, Any]) -> str:
    """How long reading a file takes each way."""
    rows = [
        [
            f"`{name}`",
            str(one["frames"]),
            f"{one['pyav_s']:.2f} s",
            f"{one['one_s']:.2f} s",
            f"{one['several_s']:.2f} s",
            f"{one['ratio']:.2f}",
        ]
        for name, one in report["files"].items()
    ]
    same = "are the same to the bit" if report["identical"] else "DIFFER"
    text = (
        f"Files of {report['seconds']:g} s, {report['height']} pixels high, read at full rate; the frames {same}. What "
        f"was aimed at, {report['limit']:g} of PyAV's time, is missed where it is more: on two cores FFmpeg's own "
        "threads leave little to gain.\n\n"
    )
    heads = ["file", "frames", "PyAV as it comes", "one source", f"{report['workers']} workers", "to PyAV"]
    return text + table(heads, rows)
