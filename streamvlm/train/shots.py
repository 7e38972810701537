"""The frames of an episode, and which of them were brought back from earlier."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from streamvlm.train.clips import Clips

_MOST_CONTEXT = 20  # frames; at inference a window holds 32


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of an episode and the time written before it."""

    clip: int
    frame: int
    pts: float  # seconds
    before: int  # the frame of the clip that was shown just before it; itself where none was


@dataclass(frozen=True, slots=True)
class Recollection:
    """Frames that were brought back, and what the window showed when they were seen."""

    shots: tuple[Shot, ...] = ()
    past: tuple[Shot, ...] = ()  # before the first of them, the sink first; seen by nobody else. None: the sink alone


def brought_back(clips: Clips, sink: Shot, window: list[Shot], stride: int, rng: random.Random) -> Recollection:
    """Moments from earlier: up to three short runs of frames, or a longer one with the past it was seen in."""
    if rng.random() < 0.5:
        return _in_context(clips, sink, window, stride, rng)
    shots: list[Shot] = []
    latest = max(0.1, window[0].pts - 4)
    for time in sorted(rng.uniform(0, latest) for _ in range(rng.randint(1, 3))):
        shots += _run(clips, window, stride, rng, rng.randint(1, 4), time)
    return Recollection(tuple(shots if all(b.pts > a.pts for a, b in pairwise(shots)) else shots[:1]))


def _in_context(clips: Clips, sink: Shot, window: list[Shot], stride: int, rng: random.Random) -> Recollection:
    """The keys and values of what is brought back were made when much else was in the window."""
    context, length = rng.randint(0, _MOST_CONTEXT), rng.randint(3, 12)
    step = stride / clips.spec.fps
    first, last = sink.pts + step, window[0].pts - (context + length) * step
    if last <= first:
        return Recollection(tuple(_run(clips, window, stride, rng, 1, rng.uniform(0, max(0.1, window[0].pts - 4)))))
    run = _run(clips, window, stride, rng, context + length, rng.uniform(first, last))
    return Recollection(tuple(run[context:]), (sink, *run[:context]))


def _run(clips: Clips, window: list[Shot], stride: int, rng: random.Random, length: int, time: float) -> list[Shot]:
    """Consecutive frames from `time` on, of the window's own story where there is room before it."""
    spec, first = clips.spec, window[0].frame
    same = first > length * stride and rng.random() < 0.6
    clip = window[0].clip if same else rng.randrange(spec.clips)
    frame = rng.randrange(max(1, (first if same else spec.frames) - length * stride))
    time = round(time * 2) / 2 if rng.random() < 0.7 else time
    frames = [frame + i * stride for i in range(length) if frame + i * stride < spec.frames]
    return [Shot(clip, f, time + (f - frame) / spec.fps, max(0, f - stride)) for f in frames]
