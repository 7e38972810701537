"""Is it cheaper to have thought already? Questions about a whole stream, most of which has left the window.

The same questions are asked at the end of the same streams, by four ways of answering:

- `direct`: nothing was thought, and nothing is;
- `after`: the question comes first. The model then writes down what happened since the beginning, with everything still
  in view (full attention), and answers after that: the usual order of a model that thinks;
- `notes`: it wrote down what happened while it watched, in a window of bounded length, and answers after its notes;
- `tracked`: it was also asked to keep track of each question, and is shown its last thought.

What is counted is what is written after the question was asked, and the time that takes; what was thought before that
is shown beside it, in rows of the model. Questions are of the forms on which `tiny` was taught to read notes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Agent, Stream, WatchConfig, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, film, log, make_parser, positive
from streamvlm.prompts import note_request, with_notes
from streamvlm.world.story import Event, Story
from streamvlm.world.wording import VERBS, deed, statement

FIRST_SEED = 2_600_000
SETTLED = 1.0  # seconds between the last event that is asked about and the question
COUNTED = {"enter": "entered", "leave": "left", "blink": "blinked"}
CAPACITY = 65536  # tokens of full attention
WAYS: dict[str, dict[str, Any]] = {
    "direct": {},
    "after": {"policy": "full"},
    "notes": {"notes": True},
    "tracked": {"notes": True},
}
LIMIT = 0.5  # of the tokens of thinking after the question
SAME = 0.02  # accuracies that differ by less are called equal


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about everything up to now."""

    text: str
    answer: str


def questions(story: Story, seconds: float, count: int) -> list[Asked]:
    """`count` questions about the first `seconds` of a story, their forms in turn."""
    rng = random.Random(f"thoughts/{story.seed}")
    events = [e for e in story.between(SETTLED, seconds - SETTLED) if e.stop <= seconds - SETTLED]
    forms: list[Callable[[list[Event], random.Random], Asked | None]] = [_how_many, _did, _right_after]
    found: dict[str, Asked] = {}
    for number in range(50 * count):
        one = forms[number % len(forms)](events, rng)
        if one is not None and len(found) < count:
            found.setdefault(one.text, one)
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {count} questions can be asked about {seconds} s")
    return list(found.values())


def _how_many(events: list[Event], rng: random.Random) -> Asked | None:
    kind = rng.choice(list(COUNTED))
    return Asked(f"how many things {COUNTED[kind]}?", str(sum(e.kind == kind for e in events)))


def _did(events: list[Event], rng: random.Random) -> Asked | None:
    done = {deed(e) for e in events}
    if not done:
        return None
    who, verb = rng.choice(sorted(done))
    if rng.random() < 0.5:
        return Asked(f"did {who} {verb}?", "yes")
    verb = rng.choice(list(VERBS.values()))
    return None if (who, verb) in done else Asked(f"did {who} {verb}?", "no")


def _right_after(events: list[Event], rng: random.Random) -> Asked | None:
    told = [statement(e) for e in events]
    once = [i for i, text in enumerate(told[:-1]) if told.count(text) == 1]
    at = rng.choice(once) if once else None
    return None if at is None else Asked(f"what happened right after {told[at]}?", told[at + 1])


@dataclass(slots=True)
class Tally:
    """What became of the questions, one way."""

    right: list[bool] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # written after each question
    seconds: list[float] = field(default_factory=list)  # from each question to the end of its answer
    rows: int = 0  # computed before the questions, on its own behalf
    watched: float = 0.0  # seconds of stream

    def report(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "asked": len(self.right),
            "right": sum(self.right),
            "accuracy": round(sum(self.right) / len(self.right), 4),
            "tokens_after": round(statistics.mean(self.tokens), 2),
            "seconds_after_p50": round(statistics.median(self.seconds), 4),
            "rows_before_per_min": round(60 * self.rows / self.watched, 1),
        }


def answered(stream: Stream, asked: Asked, way: str, until: float) -> tuple[str, int]:
    """What is said to a question at the end of the stream, and the tokens that took."""
    text, thought = asked.text, 0
    if way == "after":
        line = stream.ask(note_request(0.0), at=until)
        text = with_notes([(0.0, line.text())], text)
        thought = line.tokens
    answer = stream.ask(text, at=until)
    return answer.text(), answer.tokens + thought


def one_stream(agent: Agent, seed: int, way: str, arguments: argparse.Namespace, tally: Tally) -> None:
    """A story watched to its end, and its questions."""
    asked = questions(Story(seed), arguments.length, arguments.questions)
    frames = film(seed, arguments.length, arguments.fps)
    with agent.watch(frames, fps=arguments.fps, **WAYS[way]) as stream:
        for one in asked if way == "tracked" else ():
            stream.keep_track(one.text)
        stream.wait()
        tally.rows += stream.stats.rows_thought
        tally.watched += arguments.length
        for one in asked:
            begun = time.monotonic()
            said, tokens = answered(stream, one, way, arguments.length)
            tally.seconds.append(time.monotonic() - begun)
            tally.right.append(said.strip().rstrip(".").lower() == one.answer.lower())
            tally.tokens.append(tokens)


def claim(ways: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether having thought before took at most half of what is written after the question, at equal accuracy."""
    found: dict[str, Any] = {"limit": LIMIT, "same_within": SAME}
    for way in ("notes", "tracked"):
        if way in ways and "after" in ways:
            ratio = ways[way]["tokens_after"] / ways["after"]["tokens_after"]
            as_good = ways[way]["accuracy"] >= ways["after"]["accuracy"] - SAME
            found[way] = {"tokens_ratio": round(ratio, 4), "as_good": as_good, "holds": as_good and ratio <= LIMIT}
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every way on the same streams."""
    ways: dict[str, dict[str, Any]] = {}
    watch = WatchConfig(full_capacity_tokens=CAPACITY, max_question_tokens=512)
    with Agent(load_model(begin(arguments)), watch=watch) as agent:
        for way in arguments.ways:
            tally = Tally()
            for seed in range(arguments.seed, arguments.seed + arguments.worlds):
                one_stream(agent, seed, way, arguments, tally)
            ways[way] = tally.report()
            log.info("%s: %s", way, ways[way])
    names = ("model", "worlds", "questions", "length", "fps", "seed", "threads")
    shown = {name: getattr(arguments, name) for name in names}
    return {**shown, "window_seconds": watch.window_seconds, "ways": ways, "claim": claim(ways)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Tokens and accuracy of having thought while watching, and of thinking after the question.")
    parser.add_argument("--worlds", type=positive, default=20, help="streams, each watched once for every way")
    parser.add_argument("--questions", type=positive, default=6, help="at the end of each")
    parser.add_argument("--length", type=float, default=60.0, help="seconds of each stream")
    parser.add_argument("--fps", type=float, default=2.0, help="frames per second that are seen")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first stream")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="to compare")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="thoughts")


if __name__ == "__main__":
    main()
