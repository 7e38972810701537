"""Episodes: a sink frame, a window of frames, and questions asked somewhere along it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from streamvlm.train.clips import Clips
from streamvlm.world.questions import TASKS, Question, ask, restyle

_SERVED = (*TASKS, "count")  # counting is the slowest to learn
LATEST = 99999.0  # seconds, the largest timestamp that is trained


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of an episode and the time written before it."""

    clip: int
    frame: int
    pts: float  # seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """A question asked right after a frame of the episode."""

    shot: int  # index into the episode's shots
    question: Question


@dataclass(frozen=True, slots=True)
class Episode:
    """What one training sequence holds, before it becomes tokens."""

    system: bool  # whether a system prompt opens it
    shots: tuple[Shot, ...]  # the sink frame, then the window
    asked: tuple[Asked, ...]


def make_episode(clips: Clips, window: int, questions: int, rng: random.Random) -> Episode:
    """A sink and `window` frames of one clip at a random rate and a random hour, with `questions` questions."""
    clip = rng.randrange(clips.spec.clips)
    strides = [s for s in _strides(clips) if (window - 1) * s < clips.spec.frames]
    shots = _shots(clips, clip, window, rng.choice(strides or [1]), rng)
    asked: list[Asked] = []
    for _ in range(questions * 4):
        if len(asked) == questions:
            break
        shot = rng.randrange(len(shots)) if rng.random() < 0.7 else len(shots) - 1
        scene = clips.scene(clip, shots[shot].frame)
        question = ask(scene, rng.choice(_SERVED), rng) if scene else None
        if question:
            asked.append(Asked(shot, Question(question.task, restyle(question.text, rng), question.answer)))
    return Episode(rng.random() < 0.15, shots, tuple(asked))


def _strides(clips: Clips) -> list[int]:
    """How many frames to step so that the rate is 4, 2 (mostly), 1.3 or 1 per second."""
    return [2, 2, 2, 2, 2, 2, 1, 3, 4] if clips.spec.kind == "slow" else [1]


def _shots(clips: Clips, clip: int, window: int, stride: int, rng: random.Random) -> tuple[Shot, ...]:
    fps = clips.spec.fps
    first = rng.randrange(clips.spec.frames - max(0, (window - 1) * stride))
    if rng.random() < 0.15:  # the stream has only begun: the window follows its sink at once
        first = min(stride, first)
        sink, start = Shot(clip, 0, 0.0), first / fps
    else:
        start = min(LATEST - 60, 10 ** rng.uniform(0.3, 5))
        far = 0.0 if rng.random() < 0.7 else rng.uniform(0, start)
        sink = Shot(clip, rng.randrange(clips.spec.frames), far)
    steps = range(window)
    return (sink, *(Shot(clip, first + i * stride, start + i * stride / fps) for i in steps))
