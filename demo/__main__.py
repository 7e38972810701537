"""`python -m streamvlm.demo`: watch the sample video, ask ten questions on the way, say how many were right."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from streamvlm import Agent, StreamVLMError
from streamvlm.demo.job import ask_the_past, put_all, read_questions, save_pictures
from streamvlm.demo.report import Table, memory

FOLDER = Path(__file__).resolve().parent
ENOUGH = 0.9  # of the questions


def run(video: Path, questions: Path, model: str = "tiny") -> tuple[int, int]:
    """Watch `video` once, ask, print; returns how many were right, and of how many."""
    asked = read_questions(questions)
    table = Table(asked)
    with Agent.from_pretrained(model) as agent, TemporaryDirectory() as folder:
        store = Path(folder) / "memory"
        with agent.watch(video, store=str(store)) as stream:
            length = "" if stream.duration is None else f", {stream.duration:.1f} s"
            print(f"watching {video.name}{length}, with {model} on {agent.model.device}\n")
            print(table.head())
            begun, right = time.monotonic(), 0
            for exchange in put_all(stream, asked):
                right += exchange.right
                print(table.line(exchange), flush=True)
            print(f"\n{memory(stream.wait())}\nOne pass over the video took {time.monotonic() - begun:.1f} s.\n")
            end = stream.now or 0.0
        print("Asked again of the memory on disk, reopened as after a restart (not counted below):\n")
        gone = []
        for exchange in ask_the_past(agent, store, asked, end):
            gone.append(exchange)
            print(table.past(exchange), flush=True)
        pictures = save_pictures(gone)
        if pictures:
            print(f"\nWhat it was shown for them: {pictures[0]} and {len(pictures) - 1} more beside it")
        print()
    return right, len(asked)


def main() -> int:
    """The exit code: 0 if at least nine in ten answers are right."""
    try:
        right, total = run(FOLDER / "sample.mp4", FOLDER / "sample.json")
    except StreamVLMError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"demo: {right}/{total} right")
    return 0 if right >= ENOUGH * total else 1


if __name__ == "__main__":
    sys.exit(main())
