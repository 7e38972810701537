"""What does memory bring back, and is the answer then right? Minutes and hours back, per retrieval method.

For each distance a story is watched once, to a little beyond it, with a store; then its store is reopened with each
method and asked questions about that long ago, twice: as they are, whose clock time narrows the search, and over
everything, so that only what the method sees in the blocks can help. Of each answer two things are counted: whether a
block was brought back that shows some of what the question needs to have been seen, and whether it is right. Beside
them stand the same questions asked

- `in_window`: of the same model while what it needs is in the window: what retrieval can reach at best;
- `forgotten`: at the end of the same stream without a store: what guessing reaches.

Every finished cell is written to `--out` at once, and so is every store: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from streamvlm import Agent, Answer, BlockStore, Frame, SamplingConfig, Stream, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.benchmarks.quiz import LONGEST, Reply
from streamvlm.world.exam import exam
from streamvlm.world.paint import Painter
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story

FIRST_SEED = 2_900_000  # an evaluation seed
METHODS = ("mean_key", "top_tokens", "clusters", "pages", "recency", "embedding")
DISTANCES = (600.0, 3600.0, 21600.0)  # seconds
BLOCK_TOKENS = 64  # room for one block brought back
LEAD = 8.0  # seconds shown before what a question needs, where it is in the window
AFTER = 1.0  # seconds of it shown after
ENOUGH = 0.8  # of the accuracy in the window

Cell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Past:
    """One stream that was watched, and what is asked about it."""

    story: Story
    seconds: float
    asked: list[TimedQuestion]
    folder: Path

    @property
    def store(self) -> Path:
        """Where it is kept."""
        return self.folder / "store"


class Cells:
    """Finished cells, kept in a file as soon as there are. Another setting makes other cells."""

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        self._path = path
        self._setting = setting
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._found = {row["name"]: row["cell"] for row in map(json.loads, lines) if row["setting"] == setting}

    def get(self, name: str, measure: Callable[[], Cell]) -> Cell:
        """The cell called `name`, measured if it is not there."""
        if name not in self._found:
            cell = self._found[name] = measure()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, "setting": self._setting, "cell": cell}) + "\n")
            log.info("%s: %s", name, cell)
        cell_found: Cell = self._found[name]
        return cell_found


def shown(story: Story, start: float, stop: float, fps: float) -> Iterator[Frame]:
    """A stretch of the story as a stream; what lies before it is not drawn."""
    painter = Painter()
    for index in range(max(0, round(start * fps)), round(stop * fps)):
        picture = torch.from_numpy(painter.frame(story, index / fps).copy())
        yield Frame(picture.permute(2, 0, 1).contiguous(), index / fps, 1 / fps)


def told(answers: Sequence[Answer], asked: Sequence[TimedQuestion]) -> Cell:
    """How many answers are right."""
    replies = [Reply(0, 0, one, answer.text()) for one, answer in zip(asked, answers, strict=True)]
    return {"right": sum(reply.right for reply in replies), "asked": len(replies)}


def brought_back(stream: Stream, past: Past, *, narrowed: bool) -> Cell:
    """Questions answered from the store."""
    everything = None if narrowed else (0.0, past.seconds + 1.0)
    answers = []
    for one in past.asked:  # one after the other: there is room for one reader
        answers.append(stream.ask(one.question.text, between=everything))
        answers[-1].text()
    needs = [one.question.needs or (one.time, one.time) for one in past.asked]
    pairs = list(zip(needs, answers, strict=True))
    hits = sum(any(m.start <= last and first < m.stop for m in a.recalled) for (first, last), a in pairs)
    blocks = sum(len(answer.recalled) for answer in answers) / len(answers)
    return {**told(answers, past.asked), "found": hits, "blocks": round(blocks, 1)}


def watched(agent: Agent, past: Past, fps: float) -> BlockStore:
    """The store of a stream, which is watched unless that was done before. What was broken off begins anew."""
    done = past.folder / "watched"
    if not done.exists():
        shutil.rmtree(past.folder, ignore_errors=True)
        past.folder.mkdir(parents=True)
        with agent.watch(shown(past.story, 0.0, past.seconds, fps), fps=fps, store=str(past.store)) as stream:
            stream.wait()
        done.touch()
    return BlockStore.open(past.store / "blocks", readonly=True)


def in_window(agent: Agent, past: Past, fps: float) -> Cell:
    """Each question of a stream of its own, which ends right after what it needs."""
    answers = []
    for one in past.asked:
        first, last = one.question.needs or (one.time, one.time)
        start = max(0.0, min(first, last + AFTER - 2 * LEAD) - LEAD)
        with agent.watch(shown(past.story, start, last + AFTER, fps), fps=fps) as stream:
            stream.wait()
            answers.append(stream.ask(one.question.text))
            answers[-1].text()
    return told(answers, past.asked)


def forgotten(agent: Agent, past: Past, fps: float) -> Cell:
    """All questions at the end, of which the window's last seconds are all that is known."""
    start = past.seconds - 3 * LEAD
    with agent.watch(shown(past.story, start, past.seconds, fps), fps=fps) as stream:
        stream.wait()
        return told([stream.ask(one.question.text) for one in past.asked], past.asked)


def by_method(agent: Agent, past: Past, method: str, k: int, fps: float) -> Cell:
    """One method and number of blocks."""
    tokens = k * BLOCK_TOKENS
    options = {"retrieve_method": method, "retrieve_blocks": k, "retrieve_tokens": tokens, "max_readers": 1}
    with agent.resume(past.store, fps=fps, **options) as stream:
        ways = (("as_asked", True), ("over_everything", False))
        return {name: brought_back(stream, past, narrowed=narrowed) for name, narrowed in ways}


def one_distance(agent: Agent, arguments: argparse.Namespace, distance: float) -> dict[str, Any]:
    """A stream, its questions, the bounds, and every method on its store."""
    seconds, fps = distance * 1.1 + arguments.tail, arguments.fps
    story = Story(arguments.seed)
    asked = exam(story, seconds, arguments.questions, kinds=("episode",), distances=(distance,))
    asked = [one for one in asked if "ago" not in one.question.text and one.question.needs]  # they are asked at the end
    past = Past(story, seconds, asked, Path(arguments.out) / f"{distance:g}s-{fps:g}fps-{arguments.seed}")
    with watched(agent, past, fps) as store:
        held, digest = store.stats(), store.identity.fingerprint.digest
    log.info("%g s back: %d blocks stored, %d questions", distance, held.blocks, len(asked))
    setting = {"weights": digest, "questions": arguments.questions, "tail": arguments.tail, "blocks": held.blocks}
    cells = Cells(past.folder / "cells.jsonl", setting)
    found: dict[str, Any] = {
        "in_window": cells.get("in_window", lambda: in_window(agent, past, fps)),
        "forgotten": cells.get("forgotten", lambda: forgotten(agent, past, fps)),
    }
    methods: dict[str, Any] = {}
    for k, method in product(arguments.k, arguments.methods):
        name = f"{method}@{k}"
        cell = cells.get(name, lambda m=method, k=k: by_method(agent, past, m, k, fps))  # type: ignore[misc]
        methods[name] = described(cell, found["in_window"], k, held.blocks, held.tokens / held.blocks)
    return {"seconds": seconds, "blocks": held.blocks, "tokens": held.tokens, **found, "methods": methods}


def described(cell: Cell, best: Cell, k: int, blocks: int, tokens: float) -> dict[str, Any]:
    """A cell with what follows from it."""
    reach = best["right"] / best["asked"]
    row: dict[str, Any] = {"chance": round(min(1.0, k / blocks), 4)}  # over everything, if blocks were drawn
    for way, counts in cell.items():
        accuracy = counts["right"] / counts["asked"]
        over = round(accuracy / reach, 4) if reach else None
        row[way] = {**counts, "tokens": round(counts["blocks"] * tokens, 1), "accuracy_over_window": over}
    return row


def claim(distances: dict[str, Any]) -> dict[str, Any]:
    """The best method's share, as asked, of what the model reaches with what it needs in the window."""
    best = {
        distance: max((row["as_asked"]["accuracy_over_window"] or 0.0, name) for name, row in one["methods"].items())
        for distance, one in distances.items()
    }
    return {
        "best": {distance: {"method": name, "accuracy_over_window": share} for distance, (share, name) in best.items()},
        "wanted": ENOUGH,
        "holds": all(share >= ENOUGH for share, _ in best.values()),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every distance, the nearest first."""
    with Agent(load_model(begin(arguments)), sampling=SamplingConfig(max_new_tokens=LONGEST)) as agent:
        found = {f"{d:g}": one_distance(agent, arguments, d) for d in sorted(arguments.distances)}
    names = ("model", "questions", "seed", "fps", "k", "tail", "threads")
    return {**{name: getattr(arguments, name) for name in names}, "claim": claim(found), "distances": found}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Recall@k of the needed block and accuracy, per retrieval method and distance.")
    parser.add_argument("--distances", type=float, nargs="+", default=list(DISTANCES), help="seconds back")
    parser.add_argument("--questions", type=positive, default=60, help="per distance")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the story")
    parser.add_argument("--fps", type=float, default=1.0, help="frames the model sees per second")
    parser.add_argument("--k", type=positive, nargs="+", default=[4, 16, 64], help="blocks brought back")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="retrieval methods")
    parser.add_argument("--tail", type=float, default=60.0, help="seconds of stream after the longest way back")
    parser.add_argument("--out", default="runs/recall", help="folder for the stores and finished cells")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="recall")


if __name__ == "__main__":
    main()
