"""Told in time? Conditions watched for and seconds narrated, on worlds with seeds that were never trained on.

Some conditions come true in a world ("the sign shows 42", "there is a red star", "the light is dim"), some never do.
All of a world's are watched for at once, as a user would; nothing of the answer is told. An onset is told in time if a
watch fires from half a second before to two seconds after it. A watch that fires while its condition does not hold is
a false alarm; one that fires too late misses its onset. The same onsets are put to every trigger: `probe` asks the
model at every change of the picture, `commentary` narrates once a second and looks for the condition's words in the
line, `drop_ratio` only looks at how much of the picture changed. What each costs is counted in rows of the language
model.

Narration is judged apart: of what was over in each second, how much is said, and of what is said, how much is so.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Agent, Commentary, DropRatio, Narrated, Probe, Trigger, Watch, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, film, log, make_parser, positive
from streamvlm.world.scene import COLORS, SHAPES, Scene
from streamvlm.world.standing import ended
from streamvlm.world.story import Story
from streamvlm.world.wording import look, statement

FIRST_SEED = 2_500_000
STEP = 0.1  # seconds, how finely the truth is known
EARLY, LATE = 0.5, 2.0  # seconds around an onset within which it is told in time
TRUE, FALSE = 4, 2  # conditions of one world that come true, and that never do
TRIGGERS = ("probe", "commentary", "drop_ratio")


@dataclass(frozen=True, slots=True)
class Condition:
    """Something to wait for, and when it holds."""

    text: str
    holds: tuple[tuple[float, float], ...]  # [start, stop) in seconds

    @property
    def onsets(self) -> list[float]:
        """When it comes true; what holds from the beginning does not come true."""
        return [start for start, _ in self.holds if start > 1.0]

    def at(self, time: float) -> bool:
        """Whether it holds at `time`, give or take what frames cannot tell."""
        return any(start - EARLY <= time < stop + EARLY for start, stop in self.holds)


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
        onsets = [onset for onset in condition.onsets if onset < seconds - LATE]
        self.onsets += len(onsets)
        self.looks += watch.looks
        for onset in onsets:
            hits = [time for time in fired if onset - EARLY <= time <= onset + LATE]
            self.told += bool(hits)
            self.delays += [max(0.0, hits[0] - onset)] if hits else []
        self.false += sum(not condition.at(time) for time in fired)
        self.late += sum(condition.at(time) for time in fired) - sum(
            any(onset - EARLY <= time <= onset + LATE for onset in condition.onsets) for time in fired
        )

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


def facts(scene: Scene) -> set[str]:
    """Conditions that hold in a scene."""
    found = {f"there is {_article(look(thing))}" for thing in scene.things}
    if scene.sign is not None:
        found.add(f"the sign shows {scene.sign.text}")
    if scene.dim:
        found.add("the light is dim")
    return found


def _article(name: str) -> str:
    return f"{'an' if name.startswith('orange') else 'a'} {name}"


def timeline(story: Story, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """When each condition holds. What is just changing holds as it did before."""
    spans: dict[str, list[tuple[float, float]]] = {}
    holding: dict[str, float] = {}
    for i in range(int(seconds / STEP) + 1):
        scene = story.scene_at(i * STEP)
        if scene is None:
            continue
        now = facts(scene)
        for text in holding.keys() - now:
            spans.setdefault(text, []).append((holding.pop(text), i * STEP))
        for text in now - holding.keys():
            holding[text] = i * STEP
    for text, start in holding.items():
        spans.setdefault(text, []).append((start, seconds))
    return spans


def conditions(story: Story, seconds: float) -> list[Condition]:
    """What is watched for in a world."""
    rng, spans = random.Random(story.seed), timeline(story, seconds)
    known = [Condition(text, tuple(found)) for text, found in sorted(spans.items())]
    coming = [c for c in known if any(onset < seconds - LATE for onset in c.onsets)]
    absent = [f"there is {_article(f'{color} {shape}')}" for color in COLORS for shape in SHAPES]
    absent += [f"the sign shows {number}" for number in range(100)]
    never = [Condition(text, ()) for text in absent if text not in spans]
    return [*rng.sample(coming, min(TRUE, len(coming))), *rng.sample(never, FALSE)]


def trigger(name: str, condition: str) -> Trigger:
    """One way to know of a condition."""
    if name == "probe":
        return Probe()
    if name == "drop_ratio":
        return DropRatio()
    said = condition.removeprefix("there is ").removeprefix("a ").removeprefix("an ")
    return Commentary(tuple(word for word in said.split() if word not in ("the", "is", "shows")))


def run_triggers(agent: Agent, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every world once for each trigger."""
    found = {}
    for name in arguments.triggers:
        tally, rows = Tally(), 0
        for world in range(arguments.worlds):
            seed = FIRST_SEED + world
            wanted = conditions(Story(seed), arguments.seconds)
            with agent.watch(film(seed, arguments.seconds, arguments.fps), fps=arguments.fps) as stream:
                watches = [stream.watch(c.text, trigger=trigger(name, c.text)) for c in wanted]
                stream.wait()
                rows += stream.stats.rows_thought
            for condition, watch in zip(wanted, watches, strict=True):
                tally.add(condition, watch, arguments.seconds)
                tally.seconds += arguments.seconds
        found[name] = tally.report() | {"rows_per_min": round(60 * rows / (arguments.worlds * arguments.seconds), 1)}
        log.info("%s: %s", name, found[name])
    return found


def run_narration(agent: Agent, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every world narrated."""
    said = right = happened = heard = 0
    examples = []
    for world in range(arguments.worlds):
        seed = FIRST_SEED + world
        story = Story(seed)
        with agent.watch(film(seed, arguments.seconds, arguments.fps), fps=arguments.fps, narrate=True) as stream:
            events = stream.listen()
            stream.wait()
        lines = {event.pts: event.text for event in events if isinstance(event, Narrated)}
        for time, text in lines.items():
            near = {statement(e) for e in ended(story, time - 1 - EARLY, time + EARLY)}
            clauses = text.split("; ")
            said += len(clauses)
            right += sum(clause in near for clause in clauses)
            examples.append({"at": time, "said": text, "was": sorted(near)})
        for event in story.between(1.0, arguments.seconds - LATE):
            happened += 1
            near_lines = [text for time, text in lines.items() if event.stop - EARLY <= time <= event.stop + LATE]
            heard += any(statement(event) in text for text in near_lines)
    return {
        "lines": said,
        "precision": round(right / said, 4) if said else None,
        "events": happened,
        "recall": round(heard / happened, 4) if happened else None,
        "examples": examples[:20],
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both."""
    with Agent(load_model(begin(arguments))) as agent:
        triggers = run_triggers(agent, arguments)
        narration = run_narration(agent, arguments)
    names = ("model", "worlds", "seconds", "fps")
    return {**{name: getattr(arguments, name) for name in names}, "triggers": triggers, "narration": narration}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Recall, false alarms and delay of watches, and what narration says.")
    parser.add_argument("--worlds", type=positive, default=10, help="each is watched once for every trigger")
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
