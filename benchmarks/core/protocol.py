"""How a benchmark is run: what a question may see and how often it is sampled. Every result is stamped with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Replay = Literal["clip", "stream", "blind", "constant"]
Policy = Literal["sink_window", "full", "last_frames", "sliding", "sliding_recompute"]
END = 1e-6  # seconds by which two times are the same


@dataclass(frozen=True, slots=True)
class Protocol:
    """`clip` shows every question its own stretch of video; `stream` shows the video once and asks as it plays.

    `blind` shows one black picture, `constant` asks no model at all.
    """

    name: str
    replay: Replay
    policy: Policy = "full"  # what stays in the cache; a clip is seen whole under "full"
    context: float | None = None  # clip: seconds before the question; None is everything before it
    frames: int | None = None  # clip: this many, spread evenly; None: `fps` of them a second
    last: int | None = None  # clip: only this many newest ones of them
    fps: float = 1.0
    slower: tuple[tuple[float, float], ...] = ()  # clip: (from this many seconds of clip, frames a second), rising
    whole_seconds: bool = False  # a question is asked at the end of its second
    polls: bool = False  # proactive samples are asked every second, with the expected output, instead of watched for
    memory: bool = (
        False  # stream: what leaves the window is kept on disk and brought back for the questions it matters to
    )
    notes: bool = False  # stream: what happens is noted while watching, and the notes are shown to questions
    afresh: bool = False  # stream: every question has a stream of its own, begun where the window begins by then
    audio: bool = False  # a transcript of what was said by then goes before the question

    def __post_init__(self) -> None:
        if self.replay not in get_args(Replay):
            raise ValueError(f"replay must be one of {', '.join(get_args(Replay))}, got {self.replay!r}")
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, got {self.policy!r}")
        for name in ("context", "frames", "last", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be greater than 0 and finite, got {value}")
        if self.frames is not None and self.last is not None:
            raise ValueError(f"frames={self.frames} and last={self.last} are two ways to choose frames; give one")

    def asked_at(self, time: float) -> float:
        """Seconds at which a question about `time` is asked."""
        return float(math.ceil(time - END)) if self.whole_seconds else time

    def sample_times(self, start: float, stop: float) -> list[float]:
        """The moments of the stretch [start, stop] that are shown, rising, in seconds."""
        if self.frames is not None:
            return [float(t) for t in np.linspace(start, stop, self.frames)] if stop > start else [start]
        step = 1 / self._rate(stop - start)
        if self.last is not None:
            found = [stop - k * step for k in range(self.last)]
            return [t for t in reversed(found) if t >= start] or [stop]
        return [start + k * step for k in range(math.floor((stop - start) / step + END) + 1)]

    def _rate(self, seconds: float) -> float:
        rate = self.fps
        for begins, slower in self.slower:
            rate = slower if seconds >= begins else rate
        return rate


STREAM = Protocol("stream", "stream", policy="sink_window", fps=2.0)  # as we watch
LAST_4 = Protocol("last4", "clip", last=4)
UNIFORM_64 = Protocol("uniform64", "clip", frames=64)
SLIDING = Protocol("sliding", "stream", policy="sliding")
BLIND = Protocol("blind", "blind")
CONSTANT = Protocol("constant", "constant", polls=False)
BASELINES = (CONSTANT, BLIND, LAST_4, UNIFORM_64, SLIDING)  # beside every published figure


def protocols(official: Protocol, stream: Protocol) -> dict[str, Protocol]:
    """A benchmark's own two and the baselines, by name."""
    return {p.name: p for p in (official, stream, *BASELINES)}


def live_only() -> dict[str, Protocol]:
    """Of a benchmark that can only be run on a live stream, where no clip shows what is to be said."""
    return {p.name: p for p in (STREAM, SLIDING, CONSTANT)}
