"""Does memory stay cheap after a day? A store of 24 hours: its questions, its disk and its RAM.

The first minutes of a stream at one frame per second are watched with a store. What they left there is written again,
a little changed and at later times, through the same store, until one holds an hour and another a day: blocks of the
true shape that no model had to compute. Then both streams go on, by the real engine, and the same questions are asked
of everything stored, of one and the other in turn; what one costs is the time from asking to its whole answer.
Spilling (spilling.py) is measured as time per frame against the same stream without a store, in turns of a second.
Reading (disk.py) is measured against a plain sequential read of the same bytes, both with the system's cache of the
file dropped before and once more with all of it cached. Storing in 8 bits is measured by what it changes for questions
about stored frames: attention's output and the distribution of the first token, against fp16.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from streamvlm import Agent, Answer, BlockStore, RecallCost, SamplingConfig, Stream, codec_errors, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, draw_pictures, log, make_parser, positive
from streamvlm.benchmarks.perf.disk import reading
from streamvlm.benchmarks.perf.playing import FPS, play, shown
from streamvlm.benchmarks.perf.spilling import TURN, overhead

PICTURES = 256  # different ones, shown over and over
MINUTE, HOUR = 60.0, 3600.0
COMMIT = 64  # blocks, as the spiller does
QUESTIONS = (
    "what color is the cross?", "what shape is the red object?", "how many objects are there?",
    "where is the star?", "what number is on the sign?", "is there a blue circle?",
)  # fmt: skip
ROUNDS = 5  # of the questions
SHOWN = 48  # frames that are stored in 8 bits to see what that changes


@dataclass(slots=True, eq=False)
class Memory:
    """Memory of the process at moments of the stream."""

    seconds: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)  # MiB
    unique: list[float] = field(default_factory=list)  # MiB that no page cache shares: the mapped index is left out

    def note(self, at: float) -> None:
        """As of now."""
        info = psutil.Process().memory_full_info()
        self.seconds.append(at)
        self.rss.append(info.rss / 2**20)
        self.unique.append(info.uss / 2**20)


def cost(asked: Sequence[tuple[Answer, float]]) -> dict[str, Any]:
    """What a question cost: medians in ms of answers and the seconds until they were whole."""
    parts = [answer.recall_cost or RecallCost() for answer, _ in asked]
    found = {
        "to_first_token_ms": [1e3 * (answer.ttft_s or 0.0) for answer, _ in asked],
        "whole_answer_ms": [1e3 * seconds for _, seconds in asked],
        **{f"{n}_ms": [1e3 * getattr(p, n) for p in parts] for n in ("probe", "wait", "select", "read", "place")},
        "blocks": [float(len(answer.recalled)) for answer, _ in asked],
    }
    return {"questions": len(asked), **{name: round(statistics.median(values), 3) for name, values in found.items()}}


def ask(stream: Stream, question: str) -> tuple[Answer, float]:
    """One question about everything stored, and the seconds until its whole answer."""
    begun = time.perf_counter()
    answer = stream.ask(question)
    answer.text()
    if not answer.recalled:
        raise RuntimeError(f"nothing was brought back for {question!r}")
    return answer, time.perf_counter() - begun


def lengthen(folder: Path, until: float, memory: Memory) -> float:
    """Write what is stored again, changed a little, until the store reaches `until` seconds; returns where it ends."""
    seeded = torch.Generator().manual_seed(0)
    with BlockStore.open(folder / "blocks") as store:
        last = list(store.blocks())[-PICTURES:]
        end, written = last[-1].stop, 0
        for block in cycle(store.read([entry.id for entry in last])):
            if end >= until:
                break
            noise = 0.05 * torch.randn(*block.keys.shape[:2], 1, block.keys.shape[3], generator=seeded)
            stop = end + block.stop - block.start
            if store.put(replace(block, keys=block.keys + noise, start=end, stop=stop, id=-1)) is None:
                raise RuntimeError("the disk is full")
            end, written = stop, written + 1
            if written % COMMIT == 0:
                store.commit()
            if written % 3600 == 0:
                memory.note(end)
    return end


def reopen(agent: Agent, pictures: Sequence[Tensor], folder: Path) -> Stream:
    """Watch on where a store ends, until the window is full; every question is asked once, not to be counted."""
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        end = store.stats().stop
    stream = agent.watch(shown(pictures), fps=FPS, store=str(folder))
    play(stream, end + MINUTE)
    for question in QUESTIONS:
        ask(stream, question)
    return stream


def describe(stream: Stream, end: float, asked: Sequence[tuple[Answer, float]]) -> dict[str, Any]:
    """One stream's share of the report."""
    tokens = {name: getattr(stream.stats, f"tokens_{name}") for name in ("seen", "window", "stored", "dropped")}
    return {"hours": round(end / HOUR, 3), **cost(asked), "tokens": tokens}


def live_through(agent: Agent, pictures: Sequence[Tensor], folder: Path, seconds: float) -> dict[str, Any]:
    """A store of an hour and one of a day, and the same questions to both, taking turns."""
    memory, ends = Memory(), {"early": min(HOUR, seconds / 2), "late": seconds}
    for name in ends:
        with agent.watch(shown(pictures), fps=FPS, store=str(folder / name)) as stream:
            play(stream, PICTURES / FPS)
        ends[name] = lengthen(folder / name, ends[name], memory)
        with reopen(agent, pictures, folder / name):
            memory.note(ends[name])
    mark = memory.seconds.index(ends["early"])
    with ExitStack() as stack:
        streams: dict[str, Stream] = {}
        for name in ends:
            streams[name] = stack.enter_context(reopen(agent, pictures, folder / name))
        asked: dict[str, list[tuple[Answer, float]]] = {name: [] for name in streams}
        for question in [*QUESTIONS] * ROUNDS:
            for name, stream in streams.items():
                asked[name].append(ask(stream, question))
        found = {name: describe(stream, ends[name], asked[name]) for name, stream in streams.items()}
    with BlockStore.open(folder / "late" / "blocks", readonly=True) as store:
        held = asdict(store.stats())
    return {
        **found,
        "rss_growth_mb": round(memory.rss[-1] - memory.rss[mark], 1),
        "unique_growth_mb": round(memory.unique[-1] - memory.unique[mark], 1),
        "memory": [[round(x, 1) for x in row] for row in zip(memory.seconds, memory.rss, memory.unique, strict=True)],
        "store": {name: held[name] for name in ("blocks", "tokens", "segments", "bytes")},
    }


def precision(model: Any, pictures: Sequence[Tensor]) -> dict[str, Any]:  # noqa: ANN401
    """What storing in 8 bits changes, over all questions."""
    frames = torch.stack(list(pictures[:SHOWN]))
    found = [codec_errors(model, frames, question, fps=FPS) for question in QUESTIONS]
    errors = [error for one in found for error in one.attention]
    kl = [one.kl for one in found]
    return {
        "frames": SHOWN,
        "questions": len(found),
        "attention_error_median": round(statistics.median(errors), 6),
        "attention_error_max": round(max(errors), 6),
        "kl_median": round(statistics.median(kl), 9),
        "kl_max": round(max(kl), 9),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The overhead, the day, the disk."""
    model = load_model(begin(arguments))
    pictures = draw_pictures(7, PICTURES, FPS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-", dir=arguments.folder)))
        agent = stack.enter_context(Agent(model, sampling=SamplingConfig(max_new_tokens=8)))
        spill = overhead(agent, pictures, folder / "turns", arguments.turns)
        log.info("overhead: %s", spill)
        eight_bits = precision(model, pictures)
        log.info("8 bits: %s", eight_bits)
        day = live_through(agent, pictures, folder, arguments.hours * HOUR)
        read = reading(folder / "late")
    early, late = day["early"], day["late"]
    return {
        "model": arguments.model,
        "threads": arguments.threads,
        "hours": arguments.hours,
        "fps": FPS,
        "question_cost_24h_over_1h": round(late["whole_answer_ms"] / early["whole_answer_ms"], 3),
        "first_token_24h_over_1h": round(late["to_first_token_ms"] / early["to_first_token_ms"], 3),
        "read_over_sequential": read["cold"]["store_over_plain"],
        "spill_step_overhead": spill["step_overhead"],
        "int8_attention_error": eight_bits["attention_error_max"],
        "int8_logits_kl": eight_bits["kl_max"],
        "rss_growth_mb": day["rss_growth_mb"],
        "spill": spill,
        "int8": eight_bits,
        "day": day,
        "reading": read,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Cost of a question, RAM, spilling and reading over a day of stream.")
    parser.add_argument("--hours", type=float, default=24.0, help="of stream, at one frame per second")
    turns = f"of {TURN} frames with a store and as many without, to measure spilling"
    parser.add_argument("--turns", type=positive, default=60, help=turns)
    parser.add_argument("--folder", help="where to put the store: on the disk to be measured")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="store")


if __name__ == "__main__":
    main()
