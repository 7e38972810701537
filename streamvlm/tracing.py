"""Reading traces: how long frames took on each part of their way, and the same for a trace viewer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]
STAGES = (("decode", "captured", "decoded"), ("encode", "decoded", "encoded"), ("commit", "encoded", "committed"))


def read_trace(path: str | Path) -> list[Line]:
    """The lines of a trace; one that a crash left unfinished at the end is passed over.

    Raises:
        ValueError: it is no trace.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    found: list[Line] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found.append({"what": record["what"], "t": record["t"], **record})
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise ValueError(f"{path}:{number} is no line of a trace: {line[:80]!r}") from None
    return found


def frame_times(lines: Iterable[Line]) -> list[dict[str, float]]:
    """For every frame that was committed, by its presentation time, when it got where, in seconds of the trace.

    A frame that was not captured at a moment, because a file is read as fast as possible, has no `captured`.
    """
    decoded: dict[float, Line] = {}
    encoded: dict[float, float] = {}
    found = []
    for line in lines:
        if line["what"] == "decoded":
            decoded[line["pts"]] = line
        elif line["what"] == "encoded":
            encoded[line["pts"]] = line["t"]
        elif line["what"] == "committed" and line["pts"] in decoded:
            first = decoded[line["pts"]]
            times = {"pts": line["pts"], "decoded": first["t"], "committed": line["t"]}
            if line["lag"] is not None and first["captured"] is not None:
                times |= {"captured": first["captured"], "lag": line["lag"]}  # the lag of a patch is its oldest frame's
            if line["pts"] in encoded:
                times["encoded"] = encoded[line["pts"]]
            found.append(times)
    return found


def summarise_trace(lines: Sequence[Line]) -> dict[str, Any]:
    """Counts of everything, and percentiles in seconds of the lag and of each stage of it."""
    frames = frame_times(lines)
    lags = [f["lag"] for f in frames if "lag" in f]
    return {
        "seconds": round(max((line["t"] for line in lines), default=0.0), 3),
        "frames": len(frames),
        "frames_dropped": sum(line["frames"] for line in lines if line["what"] == "dropped"),
        "gap_seconds": round(sum(line["seconds"] for line in lines if line["what"] == "gap"), 3),
        "events": dict(Counter(line["what"] for line in lines)),
        "per_call": per_call(lines),
        "lag": _percentiles(lags),
        "stages": {
            name: _percentiles([f[stop] - f[start] for f in frames if start in f and stop in f])
            for name, start, stop in STAGES
        },
    }


def per_call(lines: Iterable[Line]) -> float | None:
    """Patches that shared a call of the vision tower, on average over the calls; None where none is noted."""
    batches = [line["batch"] for line in lines if line["what"] == "committed" and line.get("batch")]
    return round(len(batches) / sum(1 / n for n in batches), 3) if batches else None


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    ranked = sorted(values)

    def at(share: float) -> float:
        return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], 6)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)}


def chrome_trace(lines: Sequence[Line]) -> dict[str, Any]:
    """The same as Chrome's and Perfetto's trace viewers read it: a track for each stage and each answer."""
    events: list[Line] = []
    for frame in frame_times(lines):
        for name, start, stop in STAGES:
            if start in frame and stop in frame:
                length = max(0.0, frame[stop] - frame[start])
                about = {"name": f"frame {frame['pts']:.2f} s", "args": {"pts": frame["pts"]}}
                events.append({"ph": "X", "tid": name, "ts": 1e6 * frame[start], "dur": 1e6 * length, **about})
    for line in lines:
        if line["what"] not in ("decoded", "encoded", "committed"):
            track = line.get("answer", line["what"])
            about = {key: value for key, value in line.items() if key not in ("what", "t", "answer")}
            events.append(
                {"ph": "i", "s": "t", "tid": track, "ts": 1e6 * line["t"], "name": line["what"], "args": about}
            )
    tracks = {track: number for number, track in enumerate(dict.fromkeys(e["tid"] for e in events))}
    named = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": track}}
        for track, number in tracks.items()
    ]
    return {"traceEvents": [*named, *({**e, "pid": 1, "tid": tracks[e["tid"]]} for e in events)]}
