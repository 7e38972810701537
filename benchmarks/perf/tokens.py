"""What can be left out before answers suffer? Every composition against no pruning, on the same questions.

Worlds that were never trained on are filmed by a static camera, a moving one and in changing light. Every question is
asked at its moment. Time is measured on a pass without questions: of the vision tower with the pruners, and of the
steps that commit frames. Compression of what leaves the window changes no answer about the present and is not judged
here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm import Agent, FramePerceived, SamplingConfig, StreamEnded, load_model, parse_prune
from streamvlm.benchmarks.harness import RESULTS, finish, load
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.perf.cameras import CAMERAS, film
from streamvlm.benchmarks.present import LONGEST, Reply, World, score, watch
from streamvlm.world.questions import questions_for
from streamvlm.world.story import Story

FIRST_SEED = 2_500_000  # worlds nobody was tuned on: thresholds were chosen on validation seeds
MOST_KEPT = 0.2  # share of tokens that the best composition may keep
NONE = "none"
COMPOSITIONS = (
    "gate",
    "cacher",
    "cacher+dtd",
    "dtd",
    "dtd(tau=0.1)",
    "dtd(spread=1)",
    "dtd(tau=0.1, spread=1)",
    "dtd+cap(6)",
    "dtd(by=features)",
    "dtd(tau=0.25, against=previous, slack=0, peak=16)",
    "stc(keep=0.2)",
    "vidcom2(keep=0.2)",
    "dycoke",
    "tome",
    "exemplars",
    "dtd+budget(5)",
)


@dataclass(frozen=True, slots=True)
class Watched:
    """One composition on one kind of stream."""

    replies: list[Reply]
    kept: float  # share of vision tokens
    encode: float  # time of the vision tower and the pruners, against no pruning
    prefill: float  # time of steps, against no pruning


def worlds_of(camera: str, arguments: argparse.Namespace, folder: Path) -> list[World]:
    """The same worlds and questions for every camera."""
    made = []
    for number in range(arguments.worlds):
        seed = FIRST_SEED + number
        video = film(seed, arguments.seconds, camera, folder)
        made.append(World(seed, number, video, questions_for(Story(seed), arguments.seconds, arguments.per_world)))
    return made


def run(agent: Agent, worlds: Sequence[World], arguments: argparse.Namespace, prune: str | None) -> Watched:
    """Ask everything, then watch with nothing but the clock, in turns with no pruning: a machine's speed drifts."""
    replies = watch(agent, worlds, arguments, prune=prune)
    seen = [(clocked(agent, w, arguments, None), clocked(agent, w, arguments, prune)) for w in worlds]
    before, after = ([event for pair in seen for event in pair[i]] for i in (0, 1))
    kept = sum(len(e.kept) for e in after) / sum(e.grid[0] * e.grid[1] for e in after)
    encode = sum(e.encode_seconds for e in after) / sum(e.encode_seconds for e in before)
    return Watched(replies, kept, encode, prefilling(after) / prefilling(before))


def clocked(agent: Agent, world: World, arguments: argparse.Namespace, prune: str | None) -> list[FramePerceived]:
    """What happened when a world was watched and nothing asked."""
    found: list[FramePerceived] = []
    with agent.watch(world.video, fps=arguments.fps, prune=prune) as stream:
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
    streams = {}
    for camera, one in found.items():
        figures, before = score(one.replies), score(none[camera].replies)["overall"]["accuracy"]
        streams[camera] = {
            "kept": round(one.kept, 4),
            "accuracy": figures["overall"]["accuracy"],
            "accuracy_ratio": round(figures["overall"]["accuracy"] / before, 4) if before else 0.0,
            "vit_ratio": round(one.encode, 4),
            "prefill_ratio": round(one.prefill, 4),
            "tasks": figures["tasks"],
        }
    first = next(iter(streams.values()))
    worst = min(s["accuracy_ratio"] for s in streams.values())
    kept = max(s["kept"] for s in streams.values())
    ratios = {"vit_ratio": first["vit_ratio"], "prefill_ratio": first["prefill_ratio"]}
    return {"kept": kept, "accuracy_ratio": worst, **ratios, "streams": streams}


def best_of(compositions: dict[str, Any], cameras: int) -> str | None:
    """The most accurate that keeps few enough tokens on every kind of stream, by its worst kind."""
    few = {s: c for s, c in compositions.items() if c["kept"] <= MOST_KEPT and len(c["streams"]) == cameras}
    return max(few, key=lambda spec: few[spec]["accuracy_ratio"], default=None)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """No pruning first, then every composition, on every kind of stream."""
    model = load_model(begin(arguments))
    specs = arguments.prune or list(COMPOSITIONS)
    none: dict[str, Watched] = {}
    found: dict[str, dict[str, Watched]] = {spec: {} for spec in specs}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-tokens-")))
        agent = stack.enter_context(Agent(model, sampling=SamplingConfig(max_new_tokens=LONGEST)))
        for camera in arguments.camera or list(CAMERAS):
            worlds = worlds_of(camera, arguments, folder)
            watch(agent, worlds[:1], arguments)  # warm
            none[camera] = run(agent, worlds, arguments, None)
            for spec in specs:
                found[spec][camera] = run(agent, worlds, arguments, spec)
                log.info("%s %s: %s", camera, spec, _brief(compare(found[spec], none)["streams"][camera]))
    compositions = {spec: compare(one, none) for spec, one in found.items()}
    return {
        "model": arguments.model,
        "threads": arguments.threads,
        "fps": arguments.fps,
        "streams": list(none),
        "worlds": arguments.worlds,
        "first_seed": FIRST_SEED,
        "questions": sum(len(w.asked) for w in worlds),
        "most_kept": MOST_KEPT,
        "none": {camera: {**score(one.replies), "kept": one.kept} for camera, one in none.items()},
        "best": best_of(compositions, len(none)),
        "compositions": compositions,
    }


def _brief(stream: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if key != "tasks"}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Tokens kept, accuracy and time of every composition, against no pruning.")
    parser.add_argument("--prune", action="append", help="only this composition; may be repeated")
    parser.add_argument("--camera", action="append", choices=list(CAMERAS), help="only this; may be repeated")
    parser.add_argument("--worlds", type=positive, default=4, help="videos of each kind")
    parser.add_argument("--per-world", type=positive, default=50, help="questions asked of one video")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one video")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the model sees per second")
    parser.add_argument("--picture", type=Path, help="draw accuracy against tokens into this .svg or .png")
    parser.add_argument("--redraw", action="store_true", help="only draw --picture again, from the saved result")
    arguments = parser.parse_args(argv)
    if arguments.redraw and not arguments.picture:
        parser.error("--redraw needs --picture")
    for spec in arguments.prune or []:
        try:
            parse_prune(spec)
        except ValueError as error:
            parser.error(str(error))
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    result = load(RESULTS / "tokens.json") if arguments.redraw else measure(arguments)
    if arguments.picture:
        from streamvlm.benchmarks.perf.pareto import draw_pareto  # here: matplotlib is slow to load

        draw_pareto(result, arguments.picture)
    if not arguments.redraw:
        finish(result, save=arguments.save, name="tokens")


if __name__ == "__main__":
    main()
