"""How often is the answer about a moment that has left the window right?

Worlds are rendered to H.264 files and watched to their end with a store. Every question whose moment has left the
window by then was asked live, at its moment, and is asked again in three ways:

- `reopened`: the stream is closed, its store is reopened as after a restart, and the question names its second;
- `while_watching`: the same question to the stream itself, at its end, with the recent window in view;
- `forgotten`: at the end of a stream that keeps nothing.

`found` is the share of reopened questions whose needed frame was among what was brought back.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamvlm import Agent, Answer, SamplingConfig, Stream, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.quiz import LONGEST, Reply, World, add_world_options, make_worlds, score
from streamvlm.world.questions import TimedQuestion

REACH = 1.0  # seconds before its moment that a question about the past names


def gone(world: World, end: float, window: float) -> list[TimedQuestion]:
    """The questions whose moment is no longer in the window at `end` seconds."""
    return [q for q in world.asked if q.time < end - window]


def ask_again(stream: Stream, asked: Sequence[TimedQuestion]) -> list[Answer]:
    """Each question about its own second."""
    answers = [stream.ask(q.question.text, between=(max(0.0, q.time - REACH), q.time)) for q in asked]
    for answer in answers:
        answer.text()
    return answers


def replies(world: World, asked: Sequence[TimedQuestion], answers: Sequence[Answer]) -> list[Reply]:
    """What was said, to be scored."""
    return [Reply(world.group, world.seed, q, a.text()) for q, a in zip(asked, answers, strict=True)]


def found(asked: Sequence[TimedQuestion], answers: Sequence[Answer]) -> int:
    """Answers that were shown a frame of the second before their moment."""
    pairs = zip(asked, answers, strict=True)
    return sum(any(m.start <= q.time and q.time - REACH < m.stop for m in a.recalled) for q, a in pairs)


def one_world(agent: Agent, world: World, store: Path, fps: float) -> tuple[dict[str, list[Reply]], int]:
    """All four answers to every question of one video that has left the window, and how many found their frame."""
    said: dict[str, list[Reply]] = {}
    with agent.watch(world.video, fps=fps) as plain:
        live = [plain.ask(q.question.text, at=q.time) for q in world.asked]
        plain.wait()
        asked = gone(world, plain.now or 0.0, agent.watch_config.window_seconds)
        said["live"] = replies(world, asked, live[: len(asked)])
        said["forgotten"] = replies(world, asked, [plain.ask(q.question.text) for q in asked])
    with agent.watch(world.video, fps=fps, store=str(store)) as keeping:
        keeping.wait()
        said["while_watching"] = replies(world, asked, ask_again(keeping, asked))
    with agent.resume(store) as past:
        answers = ask_again(past, asked)
        said["reopened"] = replies(world, asked, answers)
    return said, found(asked, answers)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every world, every way."""
    said: dict[str, list[Reply]] = {"live": [], "reopened": [], "while_watching": [], "forgotten": []}
    hits = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-past-")))
        agent = Agent(load_model(begin(arguments)), sampling=SamplingConfig(max_new_tokens=LONGEST))
        stack.enter_context(agent)
        worlds = make_worlds(arguments, folder)
        for world in worlds:
            answered, here = one_world(agent, world, folder / f"{world.seed}", arguments.fps)
            hits += here
            for way, more in answered.items():
                said[way] += more
            log.info("world %d: %d questions of its past", world.seed, len(answered["live"]))
        window = agent.watch_config.window_seconds
    names = ("model", "questions", "seeds", "seconds", "fps", "threads")
    asked = len(said["live"])
    return {
        **{name: getattr(arguments, name) for name in names},
        "window_seconds": window,
        "reach_seconds": REACH,
        "found": {"right": hits, "asked": asked, "accuracy": round(hits / asked, 4) if asked else None},
        "ways": {way: score(answers) for way, answers in said.items()},
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Accuracy on questions about moments that have left the window.")
    parser.add_argument(
        "--questions", type=positive, default=300, help="per evaluation seed, before those still visible"
    )
    add_world_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="past")


if __name__ == "__main__":
    main()
