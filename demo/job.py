"""The main job: one pass over a video, every question asked at its moment, answered from what had been seen by then."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvlm import Agent, Answer, Stream

PATIENCE = 300.0  # seconds to wait for one answer
REACH = 1.0  # seconds of stream brought back before a moment that is asked about


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its moment and what is true then."""

    time: float  # seconds of stream
    question: str
    answer: str
    task: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and what the model said."""

    asked: Question
    answer: Answer

    @property
    def right(self) -> bool:
        """Whether the answer is the true one."""
        return same(self.answer.so_far, self.asked.answer)


def read_questions(path: Path) -> list[Question]:
    """Questions from a JSON list of {time, question, answer, task}, whatever else is in it, in time order."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    asked = (Question(row["time"], row["question"], row["answer"], row["task"]) for row in rows)
    return sorted(asked, key=lambda question: question.time)


def same(said: str, true: str) -> bool:
    """Equal but for case, spaces around, and punctuation at the end."""
    return _plain(said) == _plain(true)


def _plain(text: str) -> str:
    return re.sub(r"[\s.,;:!?]+$", "", text).strip().casefold()


def put_all(stream: Stream, questions: Sequence[Question]) -> Iterator[Exchange]:
    """Ask everything ahead, let the stream run, and yield each exchange once it is answered.

    Raises:
        StreamVLMError: the video cannot be read, or an answer failed.
    """
    exchanges = [Exchange(q, stream.ask(q.question, at=q.time)) for q in questions]
    stream.play()
    for exchange in exchanges:
        exchange.answer.text(timeout=PATIENCE)
        yield exchange


def ask_the_past(agent: Agent, store: Path, questions: Sequence[Question], end: float) -> Iterator[Exchange]:
    """Reopen what a stream kept, as after a restart, and ask again what had left the window by `end` seconds.

    Raises:
        StreamVLMError: the store cannot be read, or an answer failed.
    """
    gone = [q for q in questions if q.time < end - agent.watch_config.window_seconds]
    with agent.resume(store) as past:
        for question in gone:
            answer = past.ask(question.question, between=(max(0.0, question.time - REACH), question.time))
            answer.text(timeout=PATIENCE)
            yield Exchange(question, answer)


def save_pictures(exchanges: Sequence[Exchange]) -> list[Path]:
    """Write the newest picture that each answer about the past was shown, into a folder that stays."""
    folder = Path(tempfile.mkdtemp(prefix="streamvlm-demo-"))
    written = []
    for exchange in exchanges:
        moments = [moment for moment in exchange.answer.recalled if moment.thumbnail]
        if moments:
            written.append(folder / f"{exchange.asked.time:04.1f}s.jpg")
            written[-1].write_bytes(moments[-1].thumbnail)
    return written
