"""What storing adds to the time of a frame: two streams in one process, in short turns."""

from __future__ import annotations

import math
import random
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from streamvlm import Agent, Stream
from streamvlm.benchmarks.perf.playing import FPS, play, shown

TURN = 50  # frames with a store, then as many without: about a second, so that what is written meanwhile is counted
RESAMPLES = 2000


def overhead(agent: Agent, pictures: Sequence[Tensor], folder: Path, turns: int) -> dict[str, Any]:
    """Seconds per frame with a store over without, as the median of pairs of turns that lie side by side.

    What else the machine does changes over seconds and slows both turns of a pair alike, or one at random, for which
    the order alternates; a median forgets the pairs in which it did not. The same of the process's CPU time, that of
    the writing thread included, says what storing costs where no core is free for it; the same of the engine's thread
    alone, which runs the steps, what it costs where the other threads have cores of their own.
    """
    wall: list[float] = []
    cpu: list[float] = []
    step: list[float] = []
    plain_ms: list[float] = []
    with ExitStack() as stack:
        plain = stack.enter_context(agent.watch(shown(pictures), fps=FPS))
        storing = stack.enter_context(agent.watch(shown(pictures), fps=FPS, store=str(folder)))
        for turn in range(turns + 1):
            until = (turn + 1) * TURN / FPS
            order = (plain, storing) if turn % 2 else (storing, plain)
            taken = {stream: timed(stream, until) for stream in order}
            if turn:  # the first fills the windows
                wall.append(taken[storing][0] / taken[plain][0])
                cpu.append(taken[storing][1] / taken[plain][1])
                step.append(taken[storing][2] / taken[plain][2])
                plain_ms.append(1e3 * taken[plain][0] / TURN)
    without = statistics.median(plain_ms)
    return {
        "frames": turns * TURN,
        "ms_per_frame_without": round(without, 3),
        "ms_per_frame_with": round(without * statistics.median(wall), 3),
        "step_overhead": round(statistics.median(wall) - 1, 4),
        "step_overhead_95": interval(wall),
        "cpu_overhead": round(statistics.median(cpu) - 1, 4),
        "cpu_overhead_95": interval(cpu),
        "engine_thread_overhead": round(statistics.median(step) - 1, 4),
        "engine_thread_overhead_95": interval(step),
        "pairs": [round(ratio, 4) for ratio in wall],
    }


def timed(stream: Stream, until: float) -> tuple[float, float, float]:
    """Wall seconds of playing on to `until` seconds of stream time, CPU seconds of the process and of the engine."""
    (engine,) = (thread for thread in threading.enumerate() if thread.name == "streamvlm-engine")
    assert engine.ident is not None
    clock = time.pthread_getcpuclockid(engine.ident)
    steps, begun = time.clock_gettime(clock), time.process_time()
    wall = play(stream, until)
    return wall, time.process_time() - begun, time.clock_gettime(clock) - steps


def interval(ratios: Sequence[float]) -> list[float]:
    """Where the median of `ratios`, less one, lies in 95 % of samples drawn from them with replacement."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[math.floor(0.025 * RESAMPLES)], medians[math.ceil(0.975 * RESAMPLES) - 1]
    return [round(low - 1, 4), round(high - 1, 4)]
