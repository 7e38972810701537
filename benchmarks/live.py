"""Should an answer see the frames that arrive while it is written? Positions for live answers, against snapshots.

The same questions about the present are asked at the same moments of the same streams, and one more frame arrives for
every token. `snapshot` is as of the question. `restarted` reads the question afresh after every frame, to write one
token more than before, which is how published evaluations interleave; its last answer counts, and all that it wrote.
The others are live answers: `overlapped`, `group_decoupled`, `gap_isolated`.

An answer is right if it is true of the question's moment. A model that was not trained for a scheme is measured all the
same, and said to be untrained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Agent, Stream, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, film, log, make_parser, positive
from streamvlm.world.exam import exam
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story

FIRST_SEED = 2_700_000
KINDS = ("color", "shape", "count", "place", "sign", "is-there")
WAYS = ("snapshot", "restarted", "overlapped", "group_decoupled", "gap_isolated")
LIMIT = 8  # tokens of an answer
LIVE = WAYS[2:]


@dataclass(slots=True)
class Tally:
    """What became of the questions, one way."""

    said: list[str] = field(default_factory=list)
    right: int = 0
    tokens: int = 0  # written
    later: float = 0.0  # seconds of stream that the last token knew and the question did not

    def report(self, snapshot: Tally) -> dict[str, Any]:
        """As JSON; `snapshot` answered the same questions."""
        asked = len(self.said)
        same = sum(ours == theirs for ours, theirs in zip(self.said, snapshot.said, strict=True))
        return {
            "asked": asked,
            "right": self.right,
            "accuracy": round(self.right / asked, 4),
            "as_snapshot": round(same / asked, 4),
            "tokens_per_answer": round(self.tokens / asked, 2),
            "saw_s_more": round(self.later / asked, 3),
        }


def chosen(seed: int, arguments: argparse.Namespace) -> list[TimedQuestion]:
    """Questions about the present, far enough apart for an answer between them."""
    apart, found = (LIMIT + 2) / arguments.fps, list[TimedQuestion]()
    for one in exam(Story(seed), arguments.length - apart, arguments.questions, kinds=KINDS):
        if not found or one.time >= found[-1].time + apart:
            found.append(one)
    return found


def answered(stream: Stream, one: TimedQuestion, way: str, fps: float, tally: Tally) -> str:
    """What is said to a question while a frame arrives for every token."""
    if way != "restarted":
        answer = stream.ask(one.question.text, at=one.time, max_new_tokens=LIMIT)
        stream.play(one.time + LIMIT / fps)
        text = answer.text()
        tally.tokens += answer.tokens
        tally.later += (answer.seen_until or one.time) - (answer.as_of or one.time)
        return text
    for number in range(LIMIT):
        answer = stream.ask(one.question.text, at=one.time + number / fps, max_new_tokens=number + 1)
        text = answer.text()
        tally.tokens += answer.tokens
        if answer.status == "complete":
            break
    tally.later += (answer.as_of or one.time) - one.time
    return text


def plain(text: str) -> str:
    """As answers are compared."""
    return text.strip().rstrip(".").lower()


def one_way(agent: Agent, way: str, arguments: argparse.Namespace) -> Tally:
    """All questions on all streams."""
    tally = Tally()
    options = {"live": way, "live_anyway": True} if way in LIVE else {}
    for seed in range(arguments.seed, arguments.seed + arguments.worlds):
        frames = film(seed, arguments.length, arguments.fps)
        with agent.watch(frames, fps=arguments.fps, **options) as stream:
            for one in chosen(seed, arguments):
                said = plain(answered(stream, one, way, arguments.fps, tally))
                tally.said.append(said)
                tally.right += said == plain(one.question.answer)
    return tally


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every way on the same questions."""
    with Agent(load_model(begin(arguments))) as agent:
        trained = list(getattr(agent.model.module.config, "streamvlm_live", ()))
        tallies = {}
        for way in WAYS:
            tallies[way] = one_way(agent, way, arguments)
            log.info("%s: %d right", way, tallies[way].right)
    ways = {way: found.report(tallies["snapshot"]) for way, found in tallies.items()}
    names = ("model", "worlds", "questions", "length", "fps", "seed", "threads")
    return {**{name: getattr(arguments, name) for name in names}, "trained_for": trained, "ways": ways}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Answers that see frames arriving while they are written, against answers as of their moment.")
    parser.add_argument("--worlds", type=positive, default=20, help="streams, each watched once for every way")
    parser.add_argument("--questions", type=positive, default=12, help="for each at most; those too close are left out")
    parser.add_argument("--length", type=float, default=60.0, help="seconds of each stream")
    parser.add_argument("--fps", type=float, default=2.0, help="frames per second that are seen")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first stream")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="live")


if __name__ == "__main__":
    main()
