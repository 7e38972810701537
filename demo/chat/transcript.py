"""Transcript: what was said in one session, kept on the server; pages are sent what changed since they last looked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from streamvlm import Answer

Kind = Literal["question", "notice", "fired", "narration", "note"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NOTED = ("fired", "narration", "note")  # what nobody asked for just then
OPEN = ("waiting", "writing")


@dataclass(slots=True)
class Entry:
    """One thing said. Times are seconds of the stream of `run`."""

    number: int
    kind: Kind
    run: int  # 0: before anything was watched
    wall: float  # seconds since 1970
    at: float | None  # when it was asked, or happened; None until known
    text: str  # the question, the notice, the condition that came true, the line of narration
    reply: str = ""
    status: str = ""  # of a question: waiting, writing, complete, truncated, cancelled, failed
    as_of: float | None = None  # the moment the reply speaks about
    about: float | None = None  # the moment the question was about, where the visitor pointed at one
    evidence: list[tuple[float, float]] = field(default_factory=list)  # spans [start, stop) it could see
    moments: list[tuple[float, float, float]] = field(default_factory=list)  # recalled: start, stop, score
    version: int = 0
    answer: Answer | None = None  # while it is being written

    @property
    def open(self) -> bool:
        """Whether its answer is still to come, or being written."""
        return self.status in OPEN

    def follow(self) -> bool:
        """Take over what its answer says by now; whether anything changed."""
        answer = self.answer
        if answer is None:
            return False
        status, reply = answer.status, answer.so_far
        if answer.done:
            reply, self.answer = answer.so_far, None
            if status == "failed":
                reply = reply or f"(no answer: {answer.error})"
        changed = (status, reply) != (self.status, self.reply) or self.as_of != answer.as_of
        self.status, self.reply, self.as_of = status, reply, answer.as_of
        self.at = answer.asked_at if self.at is None else self.at
        self.evidence = list(answer.evidence)
        self.moments = [(m.start, m.stop, m.score) for m in answer.recalled]
        return changed

    def row(self) -> dict[str, Any]:
        """As JSON."""
        kept = {f.name for f in fields(self)} - {"version", "answer"}
        answer, self.answer = self.answer, None  # holds locks, which cannot be copied
        try:
            return {name: value for name, value in asdict(self).items() if name in kept}
        finally:
            self.answer = answer


def entry_of(row: dict[str, Any]) -> Entry:
    """From JSON; an answer that was being written when the row was saved is marked as interrupted."""
    entry = Entry(**{**row, "evidence": [(a, b) for a, b in row["evidence"]]})
    entry.moments = [(a, b, c) for a, b, c in row["moments"]]
    if entry.open:
        entry.status = "cancelled"
    return entry


class Transcript:
    """The entries of one session, in order. Every method may be called from any thread."""

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.lock = threading.RLock()
        self.version = 1
        self.changed: Callable[[], None] = lambda: None
        self._entries = [entry_of(row) for row in rows or []]
        for entry in self._entries:
            entry.version = self.version

    @property
    def entries(self) -> list[Entry]:
        """All of them, up to date."""
        self.follow()
        with self.lock:
            return list(self._entries)

    @property
    def waiting(self) -> list[Entry]:
        """Questions whose answers are not complete."""
        with self.lock:
            return [entry for entry in self._entries if entry.open]

    def add(self, kind: Kind, text: str, *, run: int, at: float | None = None, answer: Answer | None = None) -> Entry:
        """Append an entry."""
        with self.lock:
            entry = Entry(len(self._entries) + 1, kind, run, time.time(), at, text, answer=answer)
            if answer is not None:
                entry.follow()
            self._entries.append(entry)
            self.touch(entry)
        self.changed()
        return entry

    def touch(self, entry: Entry) -> None:
        """Note that an entry has changed."""
        with self.lock:
            self.version += 1
            entry.version = self.version

    def find(self, number: int) -> Entry | None:
        """The entry of that number, if there is one."""
        with self.lock:
            return self._entries[number - 1] if 1 <= number <= len(self._entries) else None

    def follow(self) -> None:
        """Take over what open answers say by now."""
        with self.lock:
            for entry in reversed(self._entries):
                if entry.answer is not None and entry.follow():
                    self.touch(entry)

    def since(self, version: int) -> list[Entry]:
        """What changed after that version, up to date and in order."""
        self.follow()
        with self.lock:
            return [entry for entry in self._entries if entry.version > version]
