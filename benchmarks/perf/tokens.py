"""What can be left out before answers suffer? Every composition against no pruning, on the same questions.

Worlds that were never trained on are filmed by a static camera, a moving one and in changing light. Every question is
asked at its moment, one at a time, and its reading compared with the one without pruning. Time is measured on passes
without questions, over the first worlds: of the vision tower with the pruners, and of the steps that commit frames.
Compression of what leaves the window changes no answer about the present and is not judged here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm import Agent, FramePerceived, SamplingConfig, StreamEnded, load_model, parse_prune
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.perf.cameras import CAMERAS, film
from streamvlm.benchmarks.perf.drawing import add_picture, conclude, parse_with_picture
from streamvlm.benchmarks.perf.pareto import SIZE, draw_pareto
from streamvlm.benchmarks.perf.quality import Reading, Watcher, against, watching
from streamvlm.benchmarks.quiz import LONGEST, Reply, World, score
from streamvlm.world.exam import exam
from streamvlm.world.questions import TASKS
from streamvlm.world.story import Story

FIRST_SEED = 2_500_000  # worlds nobody was tuned on: thresholds were chosen on validation seeds
MOST_KEPT = 0.2  # share of tokens that the best composition may keep
ENOUGH = 0.98  # of the accuracy without pruning
LEAST_VIT = 0.75  # of the vision tower's time on the first kind of stream
SETTLED = "gate(tau=0.04, settle=1.5, reach=6, light=1.5, peak=4)"
COMPOSITIONS = (
    "gate",
    SETTLED,
    f"{SETTLED}+tome(0.25)",
    f"{SETTLED}+dtd(spread=1)",
    "cacher",
    "dtd",
    "dtd(tau=0.08, spread=1)",
    "dtd(reach=6, light=1.5, peak=4)",
    "dtd(by=features)",
    "dtd(tau=0.25, against=previous, slack=0, peak=16)",
    "stc(keep=0.2)",
    "vidcom2(keep=0.2)",
    "dycoke",
    "exemplars",
    "dtd+budget(5)",
    "cap(4)",
    'roi(question="what number is on the sign?")+cap(4)',  # against the above, questions about the sign
)


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """One composition on one kind of stream."""

    replies: list[Reply]
    readings: list[Reading]  # of the same questions
    kept: float  # share of vision tokens
    encode: float  # time of the vision tower and the pruners, against no pruning
    prefill: float  # time of steps, against no pruning


def worlds_of(camera: str, arguments: argparse.Namespace, folder: Path) -> list[World]:
    """The same worlds and questions for every camera."""
    made = []
    for number in range(arguments.worlds):
        seed = arguments.first_seed + number
        video = film(seed, arguments.seconds, camera, folder)
        asked = exam(Story(seed), arguments.seconds, arguments.per_world, kinds=arguments.kind or TASKS)
        made.append(World(seed, number, video, asked))
    return made


def run(
    agent: Agent, watcher: Watcher, worlds: Sequence[World], arguments: argparse.Namespace, prune: str | None
) -> Watched:
    """Ask everything, then watch with nothing but the clock, in turns with no pruning: a machine's speed drifts."""
    replies, tokens, pruned = [], 0, 0
    watcher.readings.clear()
    for world in worlds:
        with agent.watch(world.video, fps=arguments.fps, prune=prune, share_tower=False) as stream:
            for asked in world.asked:
                watcher.expect()
                text = stream.ask(asked.question.text, at=asked.time).text()
                replies.append(Reply(world.group, world.seed, asked, text))
            saved = stream.wait().saved
            tokens, pruned = tokens + saved.tokens, pruned + saved.pruned
    readings = list(watcher.readings)
    assert len(readings) == len(replies), "a question was not read"
    if prune is None:
        return Watched(replies, readings, 1.0, 1.0, 1.0)
    seen = [
        (clocked(agent, w, arguments, None), clocked(agent, w, arguments, prune)) for w in worlds[: arguments.timed]
    ]
    before, after = ([event for pair in seen for event in pair[i]] for i in (0, 1))
    encode = sum(e.encode_seconds for e in after) / sum(e.encode_seconds for e in before)
    return Watched(replies, readings, 1 - pruned / tokens, encode, prefilling(after) / prefilling(before))


def clocked(agent: Agent, world: World, arguments: argparse.Namespace, prune: str | None) -> list[FramePerceived]:
    """What happened when a world was watched and nothing asked."""
    found: list[FramePerceived] = []
    with agent.watch(world.video, fps=arguments.fps, prune=prune, share_tower=False) as stream:
        for event in stream.events():
            if isinstance(event, StreamEnded):
                break
            if isinstance(event, FramePerceived):
                found.append(event)
    return found


def prefilling(events: Sequence[FramePerceived]) -> float:
    """Seconds of the steps that committed frames; the median stands for each, for a step that was interrupted."""
    steps = [e.step_seconds for e in events if e.tokens]
    return statistics.median(steps) * len(steps)


def compare(found: dict[str, Watched], none: dict[str, Watched]) -> dict[str, Any]:
    """One composition against no pruning, by kind of stream; ratios of time are of the first kind."""
    streams = {camera: _on(one, none[camera]) for camera, one in found.items()}
    first = next(iter(streams.values()))
    return {
        "kept": max(s["kept"] for s in streams.values()),
        "accuracy_ratio": min(s["accuracy_ratio"] for s in streams.values()),
        "vit_ratio": first["vit_ratio"],
        "prefill_ratio": first["prefill_ratio"],
        "attention_error": max(s["attention_error"] for s in streams.values()),
        "logit_kl": max(s["logit_kl"] for s in streams.values()),
        "streams": streams,
    }


def _on(one: Watched, none: Watched) -> dict[str, Any]:
    figures, before = score(one.replies), score(none.replies)["overall"]["accuracy"]
    accuracy = figures["overall"]["accuracy"]
    return {
        "kept": round(one.kept, 4),
        "accuracy": accuracy,
        "accuracy_ratio": round(accuracy / before, 4) if before else 0.0,
        "vit_ratio": round(one.encode, 4),
        "prefill_ratio": round(one.prefill, 4),
        **against(one.readings, none.readings),
        "tasks": figures["tasks"],
    }


def best_of(compositions: dict[str, Any], cameras: int) -> str | None:
    """The most accurate that keeps few enough tokens on every kind of stream, by its worst kind."""
    few = {s: c for s, c in compositions.items() if c["kept"] <= MOST_KEPT and len(c["streams"]) == cameras}
    return max(few, key=lambda spec: few[spec]["accuracy_ratio"], default=None)


def watch_all(arguments: argparse.Namespace) -> tuple[dict[str, Watched], dict[str, dict[str, Watched]]]:
    """No pruning by kind of stream, and every composition by kind of stream."""
    model = load_model(begin(arguments))
    none: dict[str, Watched] = {}
    found: dict[str, dict[str, Watched]] = {spec: {} for spec in arguments.prune or COMPOSITIONS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-tokens-")))
        agent = stack.enter_context(Agent(model, sampling=SamplingConfig(max_new_tokens=LONGEST)))
        watcher = stack.enter_context(watching(model))
        for camera in arguments.camera or list(CAMERAS):
            worlds = worlds_of(camera, arguments, folder)
            clocked(agent, worlds[0], arguments, None)  # warm
            none[camera] = run(agent, watcher, worlds, arguments, None)
            for spec, one in found.items():
                one[camera] = run(agent, watcher, worlds, arguments, spec)
                log.info("%s %s: %s", camera, spec, _brief(_on(one[camera], none[camera])))
    return none, found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, and the best."""
    begun = time.monotonic()
    none, found = watch_all(arguments)
    compositions = {spec: compare(one, none) for spec, one in found.items()}
    best = best_of(compositions, len(none))
    return {
        **{name: getattr(arguments, name) for name in ("model", "threads", "fps", "seconds", "worlds", "first_seed")},
        "streams": list(none),
        "kinds": arguments.kind or list(TASKS),
        "questions": len(next(iter(none.values())).replies),
        "most_kept": MOST_KEPT,
        "none": {camera: {**score(one.replies), "kept": one.kept} for camera, one in none.items()},
        "best": best,
        "good_enough": best is not None and good_enough(compositions[best]),
        "compositions": compositions,
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }


def good_enough(composition: dict[str, Any]) -> bool:
    """Whether it keeps few tokens, nearly all answers and saves time in the tower."""
    few, fast = composition["kept"] <= MOST_KEPT, composition["vit_ratio"] <= LEAST_VIT
    return bool(few and fast and composition["accuracy_ratio"] >= ENOUGH)


def _brief(stream: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if key != "tasks"}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Tokens kept, accuracy and time of every composition, against no pruning.")
    parser.add_argument("--prune", action="append", help="only this composition; may be repeated")
    parser.add_argument("--camera", action="append", choices=list(CAMERAS), help="only this; may be repeated")
    parser.add_argument("--kind", action="append", choices=TASKS, help="ask only such questions; may be repeated")
    parser.add_argument("--worlds", type=positive, default=5, help="videos of each kind")
    parser.add_argument("--timed", type=positive, default=1, help="of them, those that are watched for time as well")
    parser.add_argument("--per-world", type=positive, default=50, help="questions asked of one video")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one video")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the model sees per second")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="to tune, take seeds from 1000000 on")
    add_picture(parser, "accuracy against tokens kept")
    arguments = parse_with_picture(parser, argv)
    for spec in arguments.prune or []:
        try:
            parse_prune(spec)
        except ValueError as error:
            parser.error(str(error))
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    conclude(parse(argv), "tokens", measure, draw_pareto, SIZE)


if __name__ == "__main__":
    main()
