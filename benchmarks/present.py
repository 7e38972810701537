"""How often is the answer about the present right, on worlds with seeds that were never trained on?

Worlds are rendered to H.264 files and watched by the real line; every question is asked at its moment. Next to it,
on a share of the same questions: the most frequent answer of each task (counted on training seeds), the model shown
a black video, and the model under other window policies.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamvlm import Agent, Answer, SamplingConfig, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, mean_and_sd, positive
from streamvlm.world.questions import TASKS, TimedQuestion, questions_for
from streamvlm.world.scene import CANVAS
from streamvlm.world.story import Story
from streamvlm.world.video import VideoSpec, encode, frames

FIRST_SEED = 2_000_000  # evaluation seeds begin here: see streamvlm/train/tiny.toml
SEED_STEP = 10_000  # worlds of one evaluation seed are consecutive from FIRST_SEED + k * SEED_STEP
TRAINING_SEED = 200_000
TRAINING_WORLDS = 200  # that the constant answers are counted on
OURS = "sink_window"
BASELINES: dict[str, dict[str, Any]] = {
    "last_4_frames": {"policy": "last_frames", "last_frames": 4},
    "sliding_window": {"policy": "sliding"},
    "full_attention": {"policy": "full"},
}
LONGEST = 16  # tokens; right answers have far fewer
SHOWN_MISTAKES = 40


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
            asked = questions_for(story, arguments.seconds, count)
            assert len(asked) == count, "a question was not found"
            pictures = (picture for _, picture in frames(story, arguments.seconds, VideoSpec().fps))
            video = folder / f"{seed}.mp4"
            encode(pictures, str(video), VideoSpec())
            worlds.append(World(seed, group, video, asked))
        log.info("rendered the worlds of seed %d of %d", group + 1, arguments.seeds)
    return worlds


def make_black(arguments: argparse.Namespace, folder: Path) -> Path:
    """A video of the same length that shows nothing."""
    video, spec = folder / "black.mp4", VideoSpec()
    dark = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    encode((dark for _ in range(round(arguments.seconds * spec.fps))), str(video), spec)
    return video


def watch(agent: Agent, worlds: Sequence[World], arguments: argparse.Namespace, **options: Any) -> list[Reply]:  # noqa: ANN401
    """Ask every question at its moment. `options`: window policy, or `video` to show instead of each world's."""
    video = options.pop("video", None)
    replies = []
    for world in worlds:
        with agent.watch(video or world.video, fps=arguments.fps, **options) as stream:
            answers = [stream.ask(q.question.text, at=q.time) for q in world.asked]
            pairs = zip(world.asked, answers, strict=True)
            replies += [Reply(world.group, world.seed, q, _text(a, q)) for q, a in pairs]
    return replies


def _text(answer: Answer, asked: TimedQuestion) -> str:
    text = answer.text()
    if answer.as_of is None or answer.as_of > asked.time + 1e-3:
        raise RuntimeError(f"{asked} was answered as of {answer.as_of}")
    return text


def constant_answers() -> dict[str, str]:
    """The most frequent answer of each task on training seeds."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(TRAINING_SEED, TRAINING_SEED + TRAINING_WORLDS):
        for asked in questions_for(Story(seed), 60.0, 24):
            counts[asked.question.task][asked.question.answer] += 1
    return {task: counts[task].most_common(1)[0][0] for task in TASKS}


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


def mistakes(replies: Iterable[Reply]) -> list[dict[str, Any]]:
    """The first few wrong answers, to be looked at."""
    wrong = [r for r in replies if not r.right][:SHOWN_MISTAKES]
    return [
        {
            "world": r.world,
            "time": r.asked.time,
            "question": r.asked.question.text,
            "answer": r.asked.question.answer,
            "said": r.text,
        }
        for r in wrong
    ]


def some(worlds: Sequence[World], questions: int) -> list[World]:
    """The first worlds of every evaluation seed that hold at least `questions` questions between them."""
    held: Counter[int] = Counter()
    chosen = []
    for world in worlds:
        if held[world.group] < questions:
            chosen.append(world)
            held[world.group] += len(world.asked)
    return chosen


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our policy on every question, then the baselines on their share."""
    model = load_model(begin(arguments))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-present-")))
        worlds = make_worlds(arguments, folder)
        agent = stack.enter_context(Agent(model, sampling=SamplingConfig(max_new_tokens=LONGEST)))
        begun = time.monotonic()
        ours = watch(agent, worlds, arguments, policy=OURS)
        seconds = round(time.monotonic() - begun, 1)
        log.info("%s: %s in %s s", OURS, _share(ours), seconds)
        fewer = some(worlds, arguments.baseline_questions)
        shared = {w.seed for w in fewer}
        found = {
            OURS: {**score(ours), "on_baseline_questions": _share([r for r in ours if r.world in shared])},
            **baselines(agent, fewer, arguments, make_black(arguments, folder)),
        }
    names = ("model", "questions", "seeds", "baseline_questions", "seconds", "fps", "threads")
    return {
        **{name: getattr(arguments, name) for name in names},
        "world_seeds": [w.seed for w in worlds],
        "overall": found[OURS]["overall"],
        "seconds_taken": seconds,
        "policies": found,
        "mistakes": mistakes(ours),
    }


def baselines(agent: Agent, worlds: Sequence[World], arguments: argparse.Namespace, black: Path) -> dict[str, Any]:
    """Everything our policy is compared with, on the same questions."""
    found: dict[str, Any] = {}
    for name, options in BASELINES.items():
        found[name] = score(watch(agent, worlds, arguments, **options))
        log.info("%s: %s", name, found[name]["overall"])
    found["blind"] = score(watch(agent, worlds, arguments, video=black))
    always = constant_answers()
    said = [Reply(w.group, w.seed, q, always[q.question.task]) for w in worlds for q in w.asked]
    found["constant"] = {**score(said), "answers": always}
    return found


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """What `make_worlds` reads, but for the number of questions."""
    parser.add_argument("--seeds", type=positive, default=3, help="evaluation seeds, each with worlds of its own")
    parser.add_argument("--per-world", type=positive, default=50, help="questions asked of one video")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one video")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the model sees per second")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Accuracy on questions about the present, on worlds never trained on.")
    parser.add_argument("--questions", type=positive, default=500, help="per evaluation seed")
    parser.add_argument("--baseline-questions", type=positive, default=150, help="per evaluation seed, for baselines")
    add_world_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="present")


if __name__ == "__main__":
    main()
