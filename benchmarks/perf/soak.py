"""A long life by the clock: random questions, cancels, watches, thoughts and stalls, and nothing must be left of them.

A camera shows a story at its own pace and stalls now and then. People ask, lose patience, watch for things and stop
watching; narration is turned on and off, notes are taken, what leaves the window goes to disk. Every few seconds all
slots and tokens are counted. At the end everything is let finish: no answer may be open, no slot in use beside the
window's, no thread left, and memory may not have grown.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from torch import Tensor

from streamvlm import Agent, Answer, BusyError, Frame, Stream, Watch, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser

QUESTIONS = ("what color is the circle?", "how many things are there?", "what does the sign show?", "what happened?")
STALLS = (0.0,) * 60 + (0.7, 5.0)  # seconds by which the camera falls silent before a frame
ACT = 0.3  # seconds between two things people do
CHECKED = 5.0  # seconds between two counts of all slots
SETTLED = 120.0  # seconds within which everything must be over once nothing more is shown
GROWTH = 64.0  # MiB of process memory that a run may gain once it is warm
WARM = 120.0  # seconds, or a tenth of the run if that is more


class Stalling:
    """Pictures by the clock, with gaps."""

    live = True

    def __init__(self, pictures: Sequence[Tensor], fps: float, seconds: float, seed: int) -> None:
        self._pictures, self._fps, self._seconds = pictures, fps, seconds
        self._rng = random.Random(seed)
        self._off = threading.Event()
        self.over = threading.Event()  # it has shown everything

    def __iter__(self) -> Iterator[Frame]:
        yield from self._shown()
        self.over.set()

    def _shown(self) -> Iterator[Frame]:
        begun, pts = time.monotonic(), 0.0
        for picture in itertools.cycle(self._pictures):
            gap = self._rng.choice(STALLS)
            pts += 1 / self._fps + gap
            if pts > self._seconds or self._off.wait(max(0.0, begun + pts - time.monotonic())):
                return
            yield Frame(picture, pts, 1 / self._fps, captured=begun + pts, gap=gap)

    def close(self) -> None:
        """Show nothing more."""
        self._off.set()


class People:
    """Do something at random, again and again."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.answers: list[Answer] = []
        self.watches: list[Watch] = []
        self.counts = dict.fromkeys(("asked", "refused", "cancelled", "watched"), 0)
        self._stream, self._rng = stream, random.Random(seed)

    def act(self) -> None:
        """One thing."""
        choice = self._rng.random()
        if choice < 0.5:
            self._ask()
        elif choice < 0.65 and self.answers:
            self._rng.choice(self.answers[-5:]).cancel()
            self.counts["cancelled"] += 1
        elif choice < 0.7:
            self._watch()
        elif choice < 0.8 and self.watches:
            self._rng.choice(self.watches).cancel()
        elif choice < 0.83:
            self._stream.narrate(self._rng.choice((None, 1.0, 2.0)))

    def _ask(self) -> None:
        try:
            answer = self._stream.ask(self._rng.choice(QUESTIONS), temperature=1.0, seed=self._rng.randrange(99))
        except BusyError:
            self.counts["refused"] += 1
            return
        self.counts["asked"] += 1
        self.answers = [*(a for a in self.answers if not a.done), answer]

    def _watch(self) -> None:
        self.watches = [w for w in self.watches if not w.over]
        if len(self.watches) < 8:
            rule = self._rng.choice(({"count": 1}, {"cooldown": 3.0}))
            self.watches.append(self._stream.watch(f"the sign shows {self._rng.randrange(100)}", **rule))
            self.counts["watched"] += 1


def live(stream: Stream, people: People, camera: Stalling) -> tuple[int, list[float]]:
    """Let them, until the camera has shown everything; how often all was counted, and the memory in MiB each time."""
    process, memory, checks, next_check = psutil.Process(), list[float](), 0, 0.0
    begun = time.monotonic()
    while not (camera.over.wait(ACT) or stream.ended):
        people.act()
        if time.monotonic() - begun >= next_check:
            stream.check()
            checks, next_check = checks + 1, next_check + CHECKED
            memory.append(process.memory_info().rss / 2**20)
    return checks, memory


def settle(stream: Stream, people: People) -> int:
    """Slots that are in use beside the window's when everything should be over."""
    until = time.monotonic() + SETTLED
    while time.monotonic() < until and not (
        stream.ended and all(a.done for a in people.answers) and not stream.check()
    ):
        time.sleep(ACT)
    return stream.check()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One life."""
    model = load_model(begin(arguments))
    pictures, threads = draw_pictures(arguments.seed, 256, arguments.fps), threading.active_count()
    camera = Stalling(pictures, arguments.fps, arguments.seconds, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="streamvlm-soak-") as folder, Agent(model) as agent:
        options = {"store": folder, "store_quota_mb": 512, "fps": arguments.fps, "max_readers": 4}
        with agent.watch(camera, notes=True, window_seconds=8.0, max_answer_tokens=24, **options) as stream:
            people = People(stream, arguments.seed)
            checks, memory = live(stream, people, camera)
            left, stats = settle(stream, people), stream.stats
            opened = sum(not a.done for a in people.answers) + sum(not w.over for w in people.watches)
            error = None if stream.error is None else str(stream.error)
    gc.collect()
    warm = max(WARM, arguments.seconds / 10) / CHECKED
    growth = memory[-1] - max(memory[: 1 + int(warm)])
    log.info("memory %.0f MiB, grown by %.1f MiB", memory[-1], growth)
    accounted = stats.tokens_window + stats.tokens_stored + stats.tokens_dropped == stats.tokens_seen
    found = {
        "frames": stats.frames, "frames_dropped": stats.frames_dropped, "gap_s": round(stats.gap_seconds, 1),
        **people.counts, "checks": checks, "slots_left": left, "open_left": opened, "error": error,
        "threads_left": threading.active_count() - threads, "memory_growth_mb": round(growth, 1),
    }  # fmt: skip
    clean = accounted and error is None and not (left or opened or found["threads_left"]) and growth <= GROWTH
    return {"model": arguments.model, "seconds": arguments.seconds, "fps": arguments.fps, **found, "clean": clean}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Random questions, cancels, watches, thoughts and stalls, by the clock: is anything left?")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of stream")
    parser.add_argument("--fps", type=float, default=2.0, help="frames the camera shows per second")
    parser.add_argument("--seed", type=int, default=5, help="of everything random")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it; fails if anything is left."""
    arguments = parse(argv)
    found = measure(arguments)
    finish(found, save=arguments.save, name="soak")
    if not found["clean"]:
        raise SystemExit("something was left; see slots_left, open_left, threads_left, memory_growth_mb and error")


if __name__ == "__main__":
    main()
