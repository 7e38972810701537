"""Is the frame that a question needs among those brought back? Recall@k per retrieval method, minutes and hours back.

For each distance a story is watched once, to a little beyond it, with a store. Then the store is reopened with each
method and asked what questions about that long ago need: once by the question as it is, whose clock time narrows the
search, and once over everything, so that only what the method sees in the blocks can help. A block counts as found if
it shows some of the span that the question needs to have been seen.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from streamvlm import Agent, BlockStore, Frame, Stream, load_model
from streamvlm.benchmarks.harness import finish
from streamvlm.benchmarks.measure import begin, log, make_parser, positive
from streamvlm.world.exam import exam
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.video import frames

FIRST_SEED = 2_900_000  # an evaluation seed
METHODS = ("mean_key", "top_tokens", "clusters", "pages", "recency")
DISTANCES = (600.0, 3600.0, 21600.0)  # seconds
TOKENS = 1 << 20  # no limit but the number of blocks
PATIENCE = 600.0  # seconds for one search


def shown(story: Story, seconds: float, fps: float) -> Iterator[Frame]:
    """The story as a stream."""
    for at, picture in frames(story, seconds, fps):
        yield Frame(torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous(), at, 1 / fps)


def ask_all(stream: Stream, asked: Sequence[TimedQuestion], *, narrowed: bool) -> tuple[int, float]:
    """Questions whose needed span was brought back, and blocks brought back for one of them on average."""
    right = blocks = 0
    everything = None if narrowed else (0.0, stream.now or 1e9)
    for one in asked:
        assert one.question.needs is not None
        first, last = one.question.needs
        moments = stream.recall(one.question.text, between=everything, timeout=PATIENCE)
        right += any(m.start <= last and first < m.stop for m in moments)
        blocks += len(moments)
    return right, blocks / len(asked)


def one_distance(agent: Agent, arguments: argparse.Namespace, distance: float, folder: Path) -> dict[str, Any]:
    """A stream, its questions, and every method on its store."""
    seconds = distance * 1.1 + arguments.tail
    story = Story(arguments.seed)
    asked = exam(story, seconds, arguments.questions, kinds=("episode",), distances=(distance,))
    asked = [one for one in asked if "ago" not in one.question.text and one.question.needs]  # they are asked at the end
    with agent.watch(shown(story, seconds, arguments.fps), fps=arguments.fps, store=str(folder)) as stream:
        stream.wait()
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        held = store.stats()
    log.info("%g s back: %d blocks stored, %d questions", distance, held.blocks, len(asked))
    found: dict[str, Any] = {}
    for method in METHODS:
        for k in arguments.k:
            options = {"retrieve_method": method, "retrieve_blocks": k, "retrieve_tokens": TOKENS, "max_readers": 1}
            with agent.resume(folder, fps=arguments.fps, **options) as past:
                row: dict[str, Any] = {}
                for name, narrowed in (("as_asked", True), ("over_everything", False)):
                    right, blocks = ask_all(past, asked, narrowed=narrowed)
                    tokens = round(blocks * held.tokens / held.blocks, 1)
                    row["chance"] = round(min(1.0, k / held.blocks), 4)  # over everything, if blocks were drawn
                    row[name] = {"right": right, "asked": len(asked), "blocks": round(blocks, 1), "tokens": tokens}
                found[f"{method}@{k}"] = row
        log.info("%s: %s", method, {name: row for name, row in found.items() if name.startswith(method)})
    return {"seconds": seconds, "blocks": held.blocks, "tokens": held.tokens, "methods": found}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every distance."""
    model = load_model(begin(arguments))
    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-recall-")))
        agent = stack.enter_context(Agent(model))
        for distance in arguments.distances:
            found[f"{distance:g}"] = one_distance(agent, arguments, distance, folder / f"{distance:g}")
    names = ("model", "questions", "seed", "fps", "k", "tail", "threads")
    return {**{name: getattr(arguments, name) for name in names}, "distances": found}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = make_parser("Recall@k of the needed block, per retrieval method and distance.")
    parser.add_argument("--distances", type=float, nargs="+", default=list(DISTANCES), help="seconds back")
    parser.add_argument("--questions", type=positive, default=60, help="per distance")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the story")
    parser.add_argument("--fps", type=float, default=1.0, help="frames the model sees per second")
    parser.add_argument("--k", type=positive, nargs="+", default=[4, 16, 64], help="blocks brought back")
    parser.add_argument("--tail", type=float, default=60.0, help="seconds of stream after the longest way back")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it."""
    arguments = parse(argv)
    finish(measure(arguments), save=arguments.save, name="recall")


if __name__ == "__main__":
    main()
