"""Eight answers being written without a break: what happens to the frames?

The same engine, the same live stream and the same protocol under three schedules: ours packs the newest frame and a
token of every answer into one forward pass; `blocking` watches again when all answers are done; `alternating` takes
turns, a step of one and a step of the other.

Protocol: questions come in rounds, all at once. A round follows as soon as every answer of the last one is done and
nothing the camera has shown is waiting to be seen; without the second condition `blocking` would never watch again.
All answers are of the same length. The window is filled before measuring begins, with rounds running.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from streamvlm import Agent, Answer, Frame, FramePerceived, FramesDropped, Stream, StreamEnded, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser, positive, quantiles

Schedule = Literal["packed", "blocking", "alternating"]
SCHEDULES: dict[str, Schedule] = {"ours": "packed", "blocking": "blocking", "alternating": "alternating"}
QUESTION = "what color is the circle?"
LIMIT = 0.5  # seconds; a frame may be late by this or by one frame interval, whichever is less


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

    lags: list[float] = field(default_factory=list)  # seconds from capture to commit, one a frame seen
    dropped: int = 0
    unseen: float = 0.0  # seconds, the longest stretch without a frame committed
    rounds: int = 0
    writing: float = 0.0  # seconds during which a round was being answered


class Trial:
    """One schedule, driven from the stream's events."""

    def __init__(self, stream: Stream, camera: Camera, arguments: argparse.Namespace) -> None:
        self.count = Count()
        self.answers: list[Answer] = []
        self._stream = stream
        self._events = stream.listen()
        self._camera = camera
        self._arguments = arguments
        self._seen = -1.0  # presentation time of the newest frame seen
        self._seen_at = time.monotonic()
        self._lost = 0  # frames dropped since then
        self._round: list[Answer] = []
        self._asked = 0.0  # when; 0 while no round is open

    def run(self) -> dict[str, Any]:
        """Fill the window, measure, and report."""
        arguments = self._arguments
        self._follow(time.monotonic() + arguments.warmup)
        self.count, seen, tokens = Count(), self._seen, self._tokens()
        start = self._seen_at = time.monotonic()
        if self._asked:
            self._asked = start
        self._follow(start + arguments.seconds)
        seconds = time.monotonic() - start
        self._close_round()
        return self._report(seconds, self._tokens() - tokens, self._seen - seen)

    def _tokens(self) -> int:
        return sum(a.tokens for a in self.answers)

    def _follow(self, until: float) -> None:
        """Keep the rounds coming until that moment, and until there is anything to report."""
        for event in self._events:
            if isinstance(event, FramePerceived):
                assert event.lag is not None
                self.count.lags.append(event.lag)
                self._saw(event.pts)
            elif isinstance(event, FramesDropped):
                self._lost += event.frames
            elif isinstance(event, StreamEnded):
                raise RuntimeError(f"the stream ended: {event.error}")
            self._next_round()
            if time.monotonic() >= until and self.count.lags and self.count.rounds:
                return

    def _saw(self, pts: float) -> None:
        now = time.monotonic()
        self.count.unseen = max(self.count.unseen, now - self._seen_at)
        self._seen, self._seen_at = pts, now
        self.count.dropped += self._lost
        self._lost = 0

    def _next_round(self) -> None:
        if not all(a.done for a in self._round):
            return
        self._close_round()
        if self._seen < self._camera.newest:
            return
        arguments, length = self._arguments, self._arguments.tokens
        options = {"min_new_tokens": length, "max_new_tokens": length}
        self._round = [self._stream.ask(QUESTION, **options) for _ in range(arguments.answers)]
        self._asked = time.monotonic()
        self.answers += self._round
        self.count.rounds += 1

    def _close_round(self) -> None:
        if self._asked:
            self.count.writing += time.monotonic() - self._asked
        self._asked = 0.0

    def _report(self, seconds: float, tokens: int, shown: float) -> dict[str, Any]:
        count, frames = self.count, len(self.count.lags)
        lag = quantiles(count.lags, digits=4)
        first = [a.ttft_s for a in self.answers if a.ttft_s is not None]
        return {
            "max_lag_s": lag["max"],
            "p99_lag_s": lag["p99"],
            "p50_lag_s": lag["p50"],
            "longest_unseen_s": round(count.unseen, 4),
            "tokens_per_s": round(tokens / seconds, 2),
            "ttft_p50_s": quantiles(first, digits=4)["p50"],
            "frames": frames,
            "frames_dropped": count.dropped,
            "frames_shown": round(shown * self._arguments.fps),
            "answers": count.rounds * self._arguments.answers,
            "writing_share": round(count.writing / seconds, 4),
            "seconds": round(seconds, 2),
        }


def compare(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Lag of the others over ours, and our tokens over theirs: above 1 is better for us."""
    ours, others = found["ours"], [name for name in found if name != "ours"]
    ratios: dict[str, dict[str, float]] = {
        key: {name: round(found[name][key] / ours[key], 3) for name in others}
        for key in ("max_lag_s", "p99_lag_s", "p50_lag_s")
    }
    tokens = {name: round(ours["tokens_per_s"] / found[name]["tokens_per_s"], 3) for name in others}
    return ratios | {"tokens_per_s": tokens}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every schedule in turn, each on an agent of its own."""
    model = load_model(begin(arguments))
    pictures = draw_pictures(7, 256, arguments.fps)
    found: dict[str, dict[str, Any]] = {}
    for name, schedule in SCHEDULES.items():
        camera = Camera(pictures, arguments.fps)
        watch = {"fps": arguments.fps, "max_readers": arguments.answers, "max_answer_tokens": arguments.tokens}
        with Agent(model, schedule=schedule) as agent:
            stream = agent.watch(camera, window_seconds=arguments.window_seconds, **watch)
            found[name] = Trial(stream, camera, arguments).run()
        log.info("%s: %s", name, found[name])
    limit = min(1 / arguments.fps, LIMIT)
    names = ("model", "answers", "tokens", "fps", "seconds", "warmup", "window_seconds", "threads")
    return {
        **{name: getattr(arguments, name) for name in names},
        **found,
        "ratios": compare(found),
        "claim": {"max_lag_limit_s": limit, "holds": found["ours"]["max_lag_s"] <= limit},
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Frame lag and answer throughput with many answers being written at once.")
    parser.add_argument("--answers", type=positive, default=8, help="written at the same time")
    parser.add_argument("--tokens", type=positive, default=64, help="of each answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure, per schedule")
    parser.add_argument("--warmup", type=float, default=16.0, help="seconds before measuring, to fill the window")
    parser.add_argument("--fps", type=float, default=4.0, help="frames the camera shows per second")
    parser.add_argument("--window-seconds", type=float, default=16.0, help="of vision that stay visible")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="concurrency")


if __name__ == "__main__":
    main()
