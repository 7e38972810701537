"""Does a step cost the same after ten thousand frames? Step time, slots and memory of one endless stream.

The stream is watched with our policy, then with the baselines that forget nothing (full attention) or prefill their
window again at every frame. Pictures are drawn beforehand; `step` is the forward pass that commits a frame, `wall`
the whole time from one frame's commit to the next, vision tower included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from torch import Tensor

from streamvlm import Agent, Frame, FramePerceived, Stream, StreamEnded, StreamStats, load_model
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser, positive, quantiles
from streamvlm.benchmarks.perf.drawing import add_picture, conclude, parse_with_picture
from streamvlm.benchmarks.perf.picture import SIZE, draw_curves

OURS = "sink_window"
# Frames each baseline watches at most: their cost is plain long before, and they are slow.
BASELINES = {"last_frames": 2000, "sliding_recompute": 400, "full": 4000}
PICTURES = 256  # different ones, shown over and over
POINTS = 60  # of a curve
LIMIT = 1.10  # late over early that still counts as flat
PROGRESS = 500  # frames

Numbers = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Trace:
    """What was measured at every frame of one stream."""

    step: Numbers  # ms, the forward pass
    wall: Numbers  # ms since the frame before
    used: Numbers  # slots
    rss: Numbers  # MiB of the process
    frames: int = 0

    @classmethod
    def empty(cls, frames: int) -> Trace:
        """Room for `frames`, touched now, so that recording itself does not grow the process."""
        step, wall, used, rss = np.full((4, frames), np.nan)
        return cls(step, wall, used, rss)

    def note(self, event: FramePerceived, wall: float, rss: float) -> None:
        """One frame more."""
        at = self.frames
        self.step[at], self.wall[at] = 1e3 * event.step_seconds, 1e3 * wall
        self.used[at], self.rss[at] = event.slots_used, rss
        self.frames += 1


def shown(pictures: Sequence[Tensor], frames: int, fps: float) -> Iterator[Frame]:
    """`frames` frames at `fps` of stream time."""
    for index, picture in zip(range(frames), cycle(pictures), strict=False):
        yield Frame(picture, index / fps, 1 / fps)


def record(stream: Stream, frames: int) -> Trace:
    """Watch to the end of the stream, or to the end of its capacity."""
    trace, process, last = Trace.empty(frames), psutil.Process(), time.perf_counter()
    events = stream.events()
    for event in events:
        if isinstance(event, StreamEnded):
            break
        if isinstance(event, FramePerceived):
            now = time.perf_counter()
            trace.note(event, now - last, process.memory_info().rss / 2**20)
            last = now
            if trace.frames % PROGRESS == 0:
                log.info("%s: frame %d, %.1f ms", stream.config.policy, trace.frames, 1e3 * event.step_seconds)
    if events.missed:
        raise RuntimeError(f"{events.missed} events were missed: the trace has holes")
    return trace


def spans(frames: int) -> tuple[slice, slice]:
    """Early and late: frames 1000-2000 and the last 1000, or the second and the last tenth of a short stream."""
    part = 1000 if frames >= 3000 else max(1, frames // 10)
    return slice(part, 2 * part), slice(frames - part, frames)


def describe(trace: Trace, stats: StreamStats, slot_bytes: int, ended_by: str) -> dict[str, Any]:
    """A policy's share of the report."""
    early, late = (_span(trace, span, slot_bytes) for span in spans(trace.frames))
    return {
        "frames": trace.frames,
        "ended_by": ended_by,
        "frames_per_second": round(1e3 * trace.frames / float(trace.wall[: trace.frames].sum()), 2),
        "step_ms": quantiles(trace.step[: trace.frames]),
        "wall_ms": quantiles(trace.wall[: trace.frames]),
        "early": early,
        "late": late,
        "late_over_early": round(late["step_ms_p50"] / early["step_ms_p50"], 4),
        "rss_growth_mb": round(late["rss_mb"] - early["rss_mb"], 2),
        "capacity_slots": stats.capacity,
        "capacity_mb": round(stats.capacity * slot_bytes / 2**20, 2),
        "peak_slots": stats.peak_slots,
        "tokens_seen": stats.tokens_seen,
        "tokens_window": stats.tokens_window,
        "tokens_dropped": stats.tokens_dropped,
        "rebases": stats.rebases,
        "points": points(trace.step[: trace.frames]),
    }


def _span(trace: Trace, span: slice, slot_bytes: int) -> dict[str, Any]:
    slots = int(np.median(trace.used[span]))
    return {
        "frames": [span.start, span.stop],
        "step_ms_p50": round(float(np.median(trace.step[span])), 4),
        "wall_ms_p50": round(float(np.median(trace.wall[span])), 4),
        "slots_used": slots,
        "cache_mb_used": round(slots * slot_bytes / 2**20, 3),
        "rss_mb": round(float(np.median(trace.rss[span])), 2),
    }


def points(step: Numbers) -> list[list[float]]:
    """[frame, median ms] over spans that grow with the frame number."""
    edges = np.unique(np.geomspace(1, len(step) + 1, POINTS + 1).round().astype(int)) - 1
    return [[round(float(a + b + 1) / 2, 1), round(float(np.median(step[a:b])), 3)] for a, b in pairwise(edges)]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Watch with every policy in turn, each on an agent of its own."""
    model = load_model(begin(arguments))
    pictures = draw_pictures(7, min(PICTURES, arguments.frames), arguments.fps)
    spec = model.text_spec
    slot_bytes = 2 * spec.layers * spec.kv_heads * spec.head_dim * model.dtype.itemsize
    policies: dict[str, Any] = {}
    for policy in arguments.policy or [OURS, *BASELINES]:
        frames = min(arguments.frames, BASELINES.get(policy, arguments.frames))
        options = {"fps": arguments.fps, "policy": policy, "full_capacity_tokens": arguments.full_capacity}
        source = shown(pictures, frames, arguments.fps)
        with Agent(model) as agent, agent.watch(source, window_seconds=arguments.window_seconds, **options) as stream:
            trace = record(stream, frames)
            ended_by = str(stream.error or "the end of the stream")
            policies[policy] = describe(trace, stream.stats, slot_bytes, ended_by)
        log.info("%s: %s", policy, {k: v for k, v in policies[policy].items() if k != "points"})
    ours = policies.get(OURS, {})
    return {
        "model": arguments.model,
        "threads": arguments.threads,
        "fps": arguments.fps,
        "window_seconds": arguments.window_seconds,
        "late_over_early": ours.get("late_over_early"),
        "limit": LIMIT,
        "flat": bool(ours) and ours["late_over_early"] <= LIMIT,
        "rss_growth_mb": ours.get("rss_growth_mb"),
        "slot_bytes": slot_bytes,
        "policies": policies,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Step time, slots and memory over a long stream, against the baselines.")
    parser.add_argument("--frames", type=positive, default=10000, help="that our policy watches")
    parser.add_argument("--policy", action="append", choices=[OURS, *BASELINES], help="only this; may be repeated")
    parser.add_argument("--fps", type=float, default=2.0, help="frames per second of stream time")
    parser.add_argument("--window-seconds", type=float, default=16.0, help="of the windowed policies")
    parser.add_argument("--full-capacity", type=positive, default=32768, help="tokens full attention may keep")
    add_picture(parser, "the curves")
    return parse_with_picture(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    conclude(parse(argv), "flatness", measure, draw_curves, SIZE)


if __name__ == "__main__":
    main()
