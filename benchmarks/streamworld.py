"""StreamWorld by every way of watching, for the README: what stays visible decides what can be answered.

Each way is a run of `streamvlm bench run streamworld` in a folder of its own below `--out`; ways that see the same
streams and differ in what an answer may use share one watching, whose cost is told apart. Every answer is kept as soon
as it is there, so that the same command goes on after a kill. Two processes share the work with `--shard 1/2` and
`--shard 2/2`; when both are done, `--collect` makes the result of what they have left.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from streamvlm.benchmarks.core import commands, journal
from streamvlm.benchmarks.core.commands import RunOptions, WayOfAsking
from streamvlm.benchmarks.core.html import plot
from streamvlm.benchmarks.core.journal import Shard
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.sharing import WATCHING
from streamvlm.benchmarks.core.usage import usage
from streamvlm.benchmarks.harness import HERE, finish, load
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.suites.streamworld import Exams, StreamWorld
from streamvlm.benchmarks.world_table import GROUPS, WATCHERS, by_distance, with_far
from streamvlm.config import Config, SamplingConfig, WatchConfig
from streamvlm.world.exam import ASKED
from streamvlm.world.happenings import Looks

PICTURE = HERE.parent / "docs" / "streamworld.svg"
LONGEST = 24  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Way:
    """A way of watching, and how much of the exam it is put to."""

    protocol: str = "stream"
    changes: tuple[tuple[str, Any], ...] = ()  # of the protocol
    exams: dict[str, Any] = field(default_factory=lambda: {"watches": 0, "narrated": False})
    clips: bool = False  # whether every question is shown a clip of its own: then --clips limits them


WAYS = {
    # Watches and narration run by themselves: they are measured once, on our own policy.
    "sink_window": Way(exams={}),
    "notes_alone": Way("notes_alone"),
    "memory": Way("memory"),
    "notes": Way("notes"),
    "held_out": Way(exams={"watches": 0, "narrated": False, "looks": "held_out"}),
    "full": Way(changes=(("policy", "full"),), exams={"watches": 0, "narrated": False, "seeds": 1}),
    "afresh": Way("afresh"),
    "sliding": Way("sliding"),
    "last_frames": Way(changes=(("policy", "last_frames"),)),
    "uniform64": Way("uniform64", clips=True),
    "blind": Way("blind", clips=True),
    "constant": Way("constant", exams={}),
}


def protocol_of(way: str) -> Protocol:
    """How a way watches and asks."""
    chosen = WAYS[way]
    return commands.choose(StreamWorld(), RunOptions(chosen.protocol, overrides=chosen.changes))


def watches(way: str) -> bool:
    """Whether it has to have watched a stream from its beginning; what sees a clip or the last frames only has not."""
    protocol = protocol_of(way)
    return protocol.replay == "stream" and protocol.policy != "last_frames" and not protocol.afresh


def watched_together(ways: Sequence[str]) -> list[tuple[str, ...]]:
    """The ways, those that see the same streams together, in order of their first."""
    groups: dict[object, list[str]] = {}
    for way in ways:
        seen = replace(protocol_of(way), name="", memory=False, notes=False)
        streams = tuple(WAYS[way].exams.get(key) for key in ("looks", "seeds"))
        groups.setdefault((seen, streams, "" if watches(way) else way), []).append(way)
    return [tuple(group) for group in groups.values()]


def one_watching(group: tuple[str, ...], benchmark: StreamWorld, arguments: argparse.Namespace, config: Config) -> None:
    """The runs of some ways that see the same, or the rest of them."""
    begun, ways = time.process_time(), {}
    for way in group:
        chosen, out = WAYS[way], arguments.out / way
        limit = arguments.clips if chosen.clips else None
        options = RunOptions(chosen.protocol, out=out, limit=limit, shard=arguments.shard, overrides=chosen.changes)
        ways[way] = WayOfAsking(benchmark.adjusted(**chosen.exams), options)
    if watches(group[0]):
        commands.run_shared(ways, arguments.out / watching(group), config)
    else:
        (alone,) = ways.values()
        commands.run_benchmark(alone.benchmark, alone.options, config)
    log.info("%s: %.0f s of processor time", ", ".join(group), time.process_time() - begun)


def watching(group: Sequence[str]) -> str:
    """Name of the folder that says what it took to watch for these ways."""
    return f"{WATCHING}-{'-'.join(group)}"


def scores(way: str, out: Path) -> dict[str, Any]:
    """What a way's folder holds."""
    found = commands.summary(StreamWorld(), None, out)
    run = journal.load(out)
    return {k: found[k] for k in ("totals", "cells", "extras", "counts", "usage")} | {
        "starts": len(run.starts),
        "weights_sha256": run.stamp["weights_sha256"],
    }


def watched(group: tuple[str, ...], out: Path) -> dict[str, Any]:
    """What it took to watch for some ways, in all; minutes of stream, up to the last thing that was asked."""
    run = journal.load(out / watching(group))
    ends: dict[str, float] = {}
    for result in run.results.values():
        seed = result.id.partition("/")[0]
        ends[seed] = max(ends.get(seed, 0.0), result.as_of or 0.0)
    minutes = sum(ends.values()) / 60
    return {"ways": list(group), "minutes": round(minutes, 3), "starts": len(run.starts), "usage": usage(run)}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every way that was asked for; the scores, unless only a part of the work was."""
    model = begin(arguments)
    made = {f.name: getattr(arguments, f.name) for f in fields(Exams)}
    exams = Exams(**made | {"kinds": tuple(arguments.kinds)})
    watch = WatchConfig(full_capacity_tokens=arguments.full_capacity)
    config = Config(model, watch, SamplingConfig(max_new_tokens=LONGEST))
    groups = watched_together(arguments.ways)
    if not arguments.collect:
        for group in groups:
            one_watching(group, StreamWorld(exams), arguments, config)
    whole = arguments.shard.count == 1
    ways = {way: scores(way, arguments.out / way) for way in arguments.ways} if whole else {}
    return {
        "model": arguments.model,
        "threads": arguments.threads,
        **asdict(exams),
        "seconds": exams.seconds,
        "window_seconds": watch.window_seconds,
        "full_capacity_tokens": arguments.full_capacity,
        "ways": ways,
        "watchings": [watched(group, arguments.out) for group in groups if whole and watches(group[0])],
    }


def far(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Of a result of `streamvlm.benchmarks.ablation`, what belongs in this table.

    Raises:
        ValueError: it is of another model.
    """
    other = load(path)
    weights = [{way["weights_sha256"] for way in one["ways"].values()} - {None} for one in (found, other)]
    if weights[0] and weights[0] != weights[1]:
        raise ValueError(f"{path} is of other weights: measure it again")
    ways = {key: {"cells": way["cells"], "totals": way["totals"]} for key, way in other["ways"].items()}
    return {"seeds": other["seeds"], "seconds": other["seconds"], "ways": ways}


def report(found: dict[str, Any], arguments: argparse.Namespace, name: str) -> None:
    """The last line, and the file if it is wanted; of a shard neither."""
    if arguments.shard.count == 1:
        finish(found, save=arguments.save, name=name)


def bars(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Group of kinds, at a distance -> way -> percent, for the picture."""
    drawn: dict[str, dict[str, float]] = {}
    for way, one in with_far(found).items():
        for group, value in one["totals"]["official"].items():
            if value is not None and group != "proactive":
                drawn.setdefault(group, {})[WATCHERS[way]] = value
    order = sorted(drawn, key=lambda group: (GROUPS.index(group.partition(", ")[0]), by_distance(group)))
    return {group: drawn[group] for group in order}


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What `measure` reads beside the sizes of the exam."""
    parser.add_argument("--looks", choices=get_args(Looks), default="seen", help="but for the way held_out")
    parser.add_argument("--clips", type=positive, default=100, help="questions where each is shown a clip of its own")
    parser.add_argument("--full-capacity", type=positive, default=65536, help="tokens of full attention")
    parser.add_argument("--shard", type=Shard.parse, default=journal.WHOLE, help="i/n: this part of n, and no result")
    parser.add_argument("--collect", action="store_true", help="run nothing: the result of what shards have left")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("StreamWorld by every way of watching.")
    usual = Exams()
    parser.add_argument("--seed-base", type=int, default=usual.seed_base, help="first seed")
    parser.add_argument("--seeds", type=positive, default=usual.seeds, help="streams; full attention sees the first")
    parser.add_argument("--per-cell", type=positive, default=usual.per_cell, help="questions per kind, distance, seed")
    parser.add_argument("--longest", type=float, default=usual.longest, help="longest distance, seconds")
    parser.add_argument("--watches", type=int, default=usual.watches, help="conditions to be told of, per seed")
    parser.add_argument("--narrated", action=argparse.BooleanOptionalAction, default=usual.narrated, help="narrate too")
    parser.add_argument("--tail", type=float, default=usual.tail, help="seconds after the longest distance")
    parser.add_argument("--kinds", nargs="+", choices=ASKED, default=list(ASKED), help="of question")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which to run")
    parser.add_argument("--out", type=Path, default=Path("runs/streamworld"), help="folder of the runs")
    parser.add_argument("--far", type=Path, help="result of streamvlm.benchmarks.ablation, for its greater distances")
    parser.add_argument("--picture", type=Path, help=f"SVG of the accuracies; docs/{PICTURE.name} for the README")
    parser.add_argument("--result", default="streamworld", help="with --save, the name of the file in results")
    add_run_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.picture and arguments.shard.count > 1:
        parser.error("a shard has no picture: run --collect when all are done")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    found = measure(arguments)
    if arguments.far and found["ways"]:
        found["far"] = far(arguments.far, found)
    if arguments.picture:
        arguments.picture.write_text(plot(bars(found)) + "\n", encoding="utf-8")
    report(found, arguments, arguments.result)


if __name__ == "__main__":
    main()
