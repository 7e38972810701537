"""Told in time? StreamWorld's conditions watched for by every trigger, on worlds that were never trained on.

All conditions of a world are watched for at once, as a user would; a quarter of them never comes true, and nothing of
the answer is told. As in StreamWorld (benchmarks/suites/streamworld.py), an onset is told in time if a watch fires from
the beginning of the change that makes it true to two seconds after its end. A watch that fires while its condition does
not hold is a false alarm; one that fires too late misses its onset. The same onsets are put to every trigger: `usual`
is what a stream does by itself (`usual_trigger`: with `tiny` it asks for the value that a condition names, reads what
just happened from its narration, and else does as `probe`), `probe` asks yes or no at every change of the picture,
`commentary` narrates once a second and looks for the condition's words in the line, `drop_ratio` only looks at how much
of the picture changed. What each costs is counted in rows of the language model. How well it narrates is StreamWorld's
to say.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Agent, Commentary, DropRatio, Probe, Trigger, Watch, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, film, log, make_parser, positive
from streamvlm.benchmarks.suites.streamworld import LATE, told
from streamvlm.world.story import Story
from streamvlm.world.truths import Watch as Condition
from streamvlm.world.truths import watches_for

FIRST_SEED = 2_500_000
TRIGGERS = ("usual", "probe", "commentary", "drop_ratio")
UNTOLD = frozenset(("a", "an", "in", "is", "just", "now", "shows", "the", "there"))  # in narration


@dataclass(slots=True)
class Tally:
    """What became of the onsets under one trigger."""

    onsets: int = 0
    told: int = 0
    late: int = 0  # fired while it held, but too late
    false: int = 0
    delays: list[float] = field(default_factory=list)  # seconds from onset to the frame it was seen in
    looks: int = 0
    seconds: float = 0.0

    def add(self, condition: Condition, watch: Watch, seconds: float) -> None:
        """One condition that was watched for, over `seconds` of stream."""
        fired = [event.pts for event in watch.fired]
        onsets = [onset for onset in condition.onsets if onset.since < seconds - LATE]
        hits = [(onset, told(onset, fired)) for onset in onsets]
        self.onsets += len(onsets)
        self.told += sum(hit is not None for _, hit in hits)
        self.delays += [max(0.0, hit - onset.since) for onset, hit in hits if hit is not None]
        self.looks += watch.looks
        for time in fired:
            true = any(onset.begins <= time < onset.until for onset in condition.onsets)
            in_time = any(told(onset, [time]) is not None for onset in condition.onsets)
            self.late += true and not in_time
            self.false += not (true or in_time)

    def report(self) -> dict[str, Any]:
        """As JSON; the false alarms are those of one watch in ten minutes."""
        return {
            "onsets": self.onsets,
            "recall": round(self.told / self.onsets, 4) if self.onsets else None,
            "late": self.late,
            "false_alarms": self.false,
            "false_alarms_per_10_min": round(600 * self.false / self.seconds, 3) if self.seconds else None,
            "median_delay_s": round(statistics.median(self.delays), 3) if self.delays else None,
            "looks_per_min": round(60 * self.looks / self.seconds, 2) if self.seconds else None,
        }


def trigger(name: str, condition: str) -> Trigger | None:
    """One way to know of a condition; None is the usual one."""
    if name == "usual":
        return None
    if name == "probe":
        return Probe()
    if name == "drop_ratio":
        return DropRatio()
    return Commentary(tuple(word for word in condition.split() if word not in UNTOLD))


def run_triggers(agent: Agent, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every world once for each trigger."""
    found = {}
    for name in arguments.triggers:
        tally, rows = Tally(), 0
        for world in range(arguments.worlds):
            seed = FIRST_SEED + world
            wanted = watches_for(Story(seed), arguments.seconds, arguments.watches)
            with agent.watch(film(seed, arguments.seconds, arguments.fps), fps=arguments.fps) as stream:
                watches = [stream.watch(c.condition, trigger=trigger(name, c.condition)) for c in wanted]
                stream.wait()
                rows += stream.stats.rows_thought
            for condition, watch in zip(wanted, watches, strict=True):
                tally.add(condition, watch, arguments.seconds)
                tally.seconds += arguments.seconds
        found[name] = tally.report() | {"rows_per_min": round(60 * rows / (arguments.worlds * arguments.seconds), 1)}
        log.info("%s: %s", name, found[name])
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every trigger on every world."""
    with Agent(load_model(begin(arguments))) as agent:
        triggers = run_triggers(agent, arguments)
    names = ("model", "worlds", "watches", "seconds", "fps")
    return {**{name: getattr(arguments, name) for name in names}, "triggers": triggers}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Recall, false alarms, delay and cost of watches, by trigger.")
    parser.add_argument("--worlds", type=positive, default=10, help="each is watched once for every trigger")
    parser.add_argument("--watches", type=positive, default=8, help="conditions in each world, all at once")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each world")
    parser.add_argument("--fps", type=float, default=2.0, help="frames per second that are seen")
    parser.add_argument("--triggers", nargs="+", choices=TRIGGERS, default=list(TRIGGERS), help="to compare")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="watches")


if __name__ == "__main__":
    main()
