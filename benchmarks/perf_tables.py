"""The tables of README.md about the chat's page, about decoding and about shared calls of the vision tower."""

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


def eyes(report: dict[str, Any]) -> str:
    """What a shared call of the vision tower saves, and what it does to the lag."""
    rows = []
    for n, one in report["tower"].items():
        call = [f"{one['together_ms']:.1f} ms", f"{one['apart_ms']:.1f} ms", f"{one['ratio']:.2f}"]
        seen = report["files"].get(n)
        files = ["", "", ""]
        if seen is not None:
            files = [f"{seen['per_call']:.1f}", f"{seen['vit_ratio']:.2f}", f"{seen['wall_ratio']:.2f}"]
        rows.append([n, *call, *files])
    asked, cameras = report["asked"], report["cameras"]
    lags = {way: [f"{1e3 * one['lag_s'][q]:.0f} ms" for q in ("p50", "p99")] for way, one in cameras.items()}
    together, apart = (f"{lag[0]} in the median and {lag[1]} at the 99th percentile" for lag in lags.values())
    difference = max(one["difference"] for one in report["tower"].values())
    same = f"features {difference:.1e} apart at most" if difference else "features the same to the bit"
    text = (
        f"`{report['model']}`, {_threads(report['threads'])}. The tower alone: so many temporal patches in one call, "
        f"against a call for each: the best of {8 * report['turns']} turns; {same}. "
        f"So many files watched at once, {asked['frames']} frames each, against `share_tower=False`: the median of "
        f"{report['turns']} turns. "
        f"{asked['count']} cameras at {asked['fps']:g} frames a second lag {together} with "
        f"{cameras['together']['per_call']:.1f} patches to a call, {apart} with a call for each.\n\n"
    )
    heads = ["at once", "one call", "a call each", "ratio", "files: patches a call", "vision time", "wall time"]
    return text + table(heads, rows)


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
