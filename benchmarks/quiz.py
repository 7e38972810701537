"""Rendered worlds of seeds that were never trained on, with questions about the present, and how replies are scored.

For benchmarks that ask the same questions in several ways. How often the present is answered right, by kind of question
and way of watching, is StreamWorld's to say (streamvlm.benchmarks.streamworld).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.measure import log, mean_and_sd, positive
from streamvlm.world.exam import exam
from streamvlm.world.questions import TASKS, TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.video import VideoSpec, encode, frames

FIRST_SEED = 2_000_000  # evaluation seeds begin here: see streamvlm/train/tiny.toml
SEED_STEP = 10_000  # worlds of one evaluation seed are consecutive from FIRST_SEED + k * SEED_STEP
LONGEST = 16  # tokens; right answers have far fewer


@dataclass(frozen=True, slots=True)
class World:
    """One rendered video and what is asked about it."""

    seed: int  # of the story
    group: int  # which evaluation seed it belongs to
    video: Path
    asked: list[TimedQuestion]


@dataclass(frozen=True, slots=True)
class Reply:
    """One question, what was answered, and whether that is right."""

    group: int
    world: int
    asked: TimedQuestion
    text: str

    @property
    def right(self) -> bool:
        """Equal to the truth, but for case, spaces and a full stop."""
        return self.text.strip().rstrip(".").lower() == self.asked.question.answer


def make_worlds(arguments: argparse.Namespace, folder: Path) -> list[World]:
    """Render every world; the questions of one evaluation seed are spread over its worlds."""
    each = min(arguments.per_world, arguments.questions)
    worlds = []
    for group in range(arguments.seeds):
        for number in range(math.ceil(arguments.questions / each)):
            seed = FIRST_SEED + group * SEED_STEP + number
            story = Story(seed)
            count = min(each, arguments.questions - number * each)
            asked = present(story, arguments.seconds, count)
            pictures = (picture for _, picture in frames(story, arguments.seconds, VideoSpec().fps))
            video = folder / f"{seed}.mp4"
            encode(pictures, str(video), VideoSpec())
            worlds.append(World(seed, group, video, asked))
        log.info("rendered the worlds of seed %d of %d", group + 1, arguments.seeds)
    return worlds


def present(story: Story, seconds: float, count: int) -> list[TimedQuestion]:
    """Questions about the scene as it is when they are asked, in time order, tasks in turn."""
    return exam(story, seconds, count, kinds=TASKS)


def score(replies: Sequence[Reply]) -> dict[str, Any]:
    """Overall and per task, with denominators; mean and standard deviation over the evaluation seeds."""
    by_seed = [_share([r for r in replies if r.group == g])["accuracy"] for g in sorted({r.group for r in replies})]
    mean, sd = mean_and_sd(by_seed)
    tasks = {task: _share([r for r in replies if r.asked.question.task == task]) for task in TASKS}
    return {
        "overall": {**_share(replies), "mean": round(mean, 4), "sd": round(sd, 4), "by_seed": by_seed},
        "tasks": tasks,
    }


def _share(replies: Sequence[Reply]) -> dict[str, Any]:
    right = sum(r.right for r in replies)
    return {"right": right, "asked": len(replies), "accuracy": round(right / len(replies), 4) if replies else None}


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """What `make_worlds` reads, but for the number of questions."""
    parser.add_argument("--seeds", type=positive, default=3, help="evaluation seeds, each with worlds of its own")
    parser.add_argument("--per-world", type=positive, default=50, help="questions asked of one video")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one video")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the model sees per second")
