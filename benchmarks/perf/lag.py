"""N answers being written without a break: how late are the frames, and how fast the answers?

The same engine, model, kernels, window and live stream under five schedules: ours packs the newest frame and a token of
every answer into one forward pass; `blocking` watches again when all answers are done; `wait_k` writes up to 16 tokens
of one answer between two frames; `alternating` takes turns, a step of one and a step of all the others; `two_threads`
perceives and writes on a thread each.

An answer that is done is followed by the next at once. Under `blocking` it would never watch again, so there a round of
answers follows when all are done and nothing the camera has shown waits to be seen. The window is filled before
measuring begins. Lag is the time from a frame's capture to its keys and values being in the cache.

With `--save` every run is kept as soon as it is over, and the same command goes on where it was cut off.

With `--predict`, the same schedules are also run on virtual time, for hardware that is described by a few numbers:
planner, caches and readers are the real ones, the time of a forward pass comes from a roofline. That is a prediction.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from streamvlm import (
    Agent,
    Answer,
    AnswerDone,
    Frame,
    FramePerceived,
    FramesDropped,
    Stream,
    StreamEnded,
    load_model,
)
from streamvlm.benchmarks import harness
from streamvlm.benchmarks.harness import commit, finish, keep, machine, with_origin
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser, positive
from streamvlm.benchmarks.perf.predicted import SCHEDULES, figures, predict

QUESTION = "what color is the circle?"
LIMIT = 0.5  # seconds; a frame may be late by this or by one frame interval, whichever is less
PATIENCE = 60.0  # seconds a policy may take beyond its time to have anything to report
ANSWERS = (0, 1, 4, 8, 16)
# What all runs of one result have in common.
SETTINGS = ("model", "tokens", "fps", "seconds", "warmup", "window_seconds", "threads", "watches", "narrate", "notes")

Run = dict[str, Any]


class Camera:
    """Pictures shown by the clock, whether or not anybody is ready for them."""

    live = True

    def __init__(self, pictures: Sequence[Tensor], fps: float) -> None:
        self.newest = -1.0  # presentation time of the newest frame shown, seconds
        self._pictures = pictures
        self._fps = fps
        self._off = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        begun = time.monotonic()
        for index, picture in enumerate(itertools.cycle(self._pictures)):
            pts = index / self._fps
            if self._off.wait(max(0.0, begun + pts - time.monotonic())):
                return
            self.newest = pts
            yield Frame(picture, pts, 1 / self._fps, captured=begun + pts)

    def close(self) -> None:
        """Show nothing more."""
        self._off.set()


@dataclass(slots=True, eq=False)
class Count:
    """What happened while measuring."""

    lags: list[float] = field(default_factory=list)  # seconds from capture to commit, one a block seen
    frames: int = 0
    dropped: int = 0
    backlog: int = 0  # frames shown and not yet seen when one was, the most


class Trial:
    """One schedule and one number of answers, driven from the stream's events."""

    def __init__(self, stream: Stream, camera: Camera, arguments: argparse.Namespace, answers: int) -> None:
        self._count = Count()
        self._stream = stream
        self._events = stream.listen()
        self._camera = camera
        self._arguments = arguments
        self._wanted = answers
        self._seen = -1.0  # presentation time of the newest frame seen
        self._open: list[Answer] = []
        self._done: list[Answer] = []
        self._rounds = False  # whether answers come all at once

    def run(self, *, rounds: bool) -> dict[str, Any]:
        """Fill the window, measure, and report."""
        arguments, self._rounds = self._arguments, rounds
        self._follow(time.monotonic() + arguments.warmup)
        self._count, seen, tokens = Count(), self._seen, self._tokens()
        self._done.clear()
        written = tokens - self._tokens()  # by answers that are of no more interest
        start = time.monotonic()
        self._follow(start + arguments.seconds)
        seconds = time.monotonic() - start
        return self._report(seconds, self._tokens() + written - tokens, self._seen - seen)

    def _tokens(self) -> int:
        return sum(a.tokens for a in (*self._done, *self._open))

    def _follow(self, until: float) -> None:
        """Keep the answers coming until that moment, and until there is anything to report."""
        for event in self._events:
            if isinstance(event, FramePerceived):
                assert event.lag is not None
                self._count.lags.append(event.lag)
                self._count.frames += event.frames
                self._seen = event.pts
                waiting = round((self._camera.newest - event.pts) * self._arguments.fps)
                self._count.backlog = max(self._count.backlog, waiting)
            elif isinstance(event, FramesDropped):
                self._count.dropped += event.frames
            elif isinstance(event, StreamEnded):
                raise RuntimeError(f"the stream ended: {event.error}")
            refused = isinstance(event, AnswerDone) and event.answer.status == "failed"
            if not refused:  # then there is no time for another one either, before the next frame
                self._keep_asking()
            enough = self._count.lags and (self._done or not self._wanted)
            if time.monotonic() >= until and (enough or time.monotonic() >= until + PATIENCE):
                return

    def _keep_asking(self) -> None:
        self._done += [a for a in self._open if a.done]
        self._open = [a for a in self._open if not a.done]
        if self._rounds and (self._open or self._seen < self._camera.newest):
            return
        length = self._arguments.tokens
        options = {"min_new_tokens": length, "max_new_tokens": length}
        self._open += [self._stream.ask(QUESTION, **options) for _ in range(self._wanted - len(self._open))]

    def _report(self, seconds: float, tokens: int, shown: float) -> dict[str, Any]:
        first = [a.ttft_s for a in (*self._done, *self._open) if a.ttft_s is not None]
        failed = sum(a.status == "failed" for a in self._done)
        return figures(self._count.lags, first) | {
            "tokens_per_s": round(tokens / seconds, 2),
            "forced_drops": self._count.dropped,
            "backlog_max": self._count.backlog,
            "frames": self._count.frames,
            "frames_shown": round(shown * self._arguments.fps),
            "answers_done": len(self._done) - failed,
            "answers_failed": failed,
            "seconds": round(seconds, 2),
        }


def claim(found: dict[str, Any], fps: float) -> dict[str, Any]:
    """Whether perception never stalled."""
    limit = min(1 / fps, LIMIT)
    late = found["max_lag_s"] is None or found["max_lag_s"] > limit
    return {
        "max_lag_limit_s": limit,
        "holds": not late and found["forced_drops"] == 0 and found["backlog_max"] <= 1,
    }


def one_run(model: Any, pictures: Sequence[Tensor], name: str, answers: int, arguments: argparse.Namespace) -> Run:  # noqa: ANN401
    """A schedule with so many answers, on an agent of its own."""
    camera = Camera(pictures, arguments.fps)
    room = {"fps": arguments.fps, "max_readers": max(1, answers), "max_answer_tokens": arguments.tokens}
    with Agent(model, schedule=SCHEDULES[name]) as agent:
        thoughts = {"narrate": arguments.narrate, "notes": arguments.notes}
        stream = agent.watch(camera, window_seconds=arguments.window_seconds, **room, **thoughts)
        for number in range(arguments.watches):
            stream.watch(f"the sign shows {number}")
        found = Trial(stream, camera, arguments, answers).run(rounds=name == "blocking")
    made = {"commit": commit()["commit"], "cpu": machine()["cpu"]}  # runs of one result may be days apart
    return found | {"claim": claim(found, arguments.fps)} | made


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every schedule with every number of answers in turn; what an earlier start has kept is not run again."""
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    kept = earlier(settings, fresh=arguments.fresh) if arguments.save else {}
    sweep: dict[str, dict[str, Run]] = kept.get("sweep", {})
    model = load_model(begin(arguments))
    pictures = draw_pictures(7, 256, arguments.fps)
    predicted = kept.get("predicted")
    for answers, name in itertools.product(sorted(arguments.answers), arguments.schedules):
        if str(answers) in sweep.get(name, {}):
            continue
        found = one_run(model, pictures, name, answers, arguments)
        sweep.setdefault(name, {})[str(answers)] = found
        log.info("%s, %d answers: %s", name, answers, found)
        if arguments.save:
            keep(with_origin(settings | summary(sweep, predicted), "lag"))
    if arguments.predict:
        predicted = predict(model, arguments)
    return settings | summary(sweep, predicted)


def summary(sweep: dict[str, dict[str, Run]], predicted: dict[str, Any] | None) -> dict[str, Any]:
    """All runs in order, and those with the most answers by themselves."""
    ordered = {
        name: dict(sorted(sweep[name].items(), key=lambda one: int(one[0]))) for name in SCHEDULES if name in sweep
    }
    return {
        "answers": sorted({int(number) for found in ordered.values() for number in found}),
        "policies": {name: next(reversed(found.values())) for name, found in ordered.items()},
        "sweep": ordered,
        "predicted": predicted,
    }


def earlier(settings: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """What an earlier start with the same settings has kept.

    Raises:
        SystemExit: what is kept was measured otherwise, and is not to be lost by mistake.
    """
    path = harness.RESULTS / "lag.json"
    if fresh or not path.exists():
        return {}
    report = harness.load(path)
    other = {name: report.get(name) for name in SETTINGS if report.get(name) != settings[name]}
    if other:
        sys.exit(f"{path} was measured with {other}; --fresh starts anew")
    return report


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Frame lag and answer throughput with many answers being written at once.")
    parser.add_argument("--answers", type=int, nargs="+", default=list(ANSWERS), help="written at the same time")
    parser.add_argument("--tokens", type=positive, default=64, help="of each answer")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure, per schedule and number of answers")
    parser.add_argument("--warmup", type=float, default=16.0, help="seconds before measuring, to fill the window")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the camera shows per second")
    parser.add_argument("--window-seconds", type=float, default=16.0, help="of vision that stay visible")
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES), help="to compare")
    parser.add_argument("--watches", type=int, default=0, help="conditions that are watched for meanwhile")
    parser.add_argument("--narrate", action="store_true", help="and every second narrated")
    parser.add_argument("--notes", action="store_true", help="and notes taken")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier start with --save has kept")
    parser.add_argument("--predict", type=float, default=0.0, help="virtual seconds to predict; 0 is off")
    parser.add_argument("--predict-fps", type=float, default=2.0, help="of the predicted stream")
    parser.add_argument("--predict-tokens", type=positive, default=128, help="of each of its temporal patches")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="lag")


if __name__ == "__main__":
    main()
