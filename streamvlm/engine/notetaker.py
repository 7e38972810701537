"""NoteTaker: one line about every segment of a stream, written late rather than in anybody's way, and what becomes of
them: chapters, standing thoughts, and what a question is shown of them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from streamvlm import prompts
from streamvlm.engine.segments import Boundaries
from streamvlm.engine.sight import Change
from streamvlm.memory.notes import Note, NoteKind, Notes
from streamvlm.retrieval.spans import time_spans

LIMIT = 48  # tokens of a note
CHAPTER = 10  # observations
CHAPTER_WORDS = 96
SHOWN = 6  # notes before a question, at most
WAITING = 8  # requests that may wait; the oldest thought gives way
SHORTEST = 1.0  # seconds of a last segment that is still worth a note

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Jot:
    """A line to be written."""

    question: str
    kind: NoteKind
    start: float  # seconds
    stop: float
    about: str = ""  # the standing question a thought belongs to


@dataclass(frozen=True, slots=True)
class Thought:
    """The newest about a standing question."""

    line: str
    note: Note


@dataclass(slots=True, eq=False)
class NoteTaker:
    """What one stream notes."""

    notes: Notes
    boundaries: Boundaries = field(default_factory=Boundaries)
    standing: list[str] = field(default_factory=list)  # questions that are thought about while watching
    paused: bool = False
    asking: bool = False
    lost: int = 0  # thoughts that gave way
    _jots: deque[Jot] = field(default_factory=deque)
    _thoughts: dict[str, Thought] = field(default_factory=dict)  # by question
    _loose: list[Note] = field(default_factory=list)  # observations in no chapter yet

    @property
    def due(self) -> bool:
        """Whether there is something to write."""
        return bool(self._jots) and not self.paused

    def saw(self, time: float, change: Change) -> None:
        """A block was seen; does it end a segment?"""
        ended = self.boundaries.see(time, change)
        if ended is not None:
            self._segment(*ended)

    def finish(self, now: float) -> None:
        """The stream ends: its last segment does, too."""
        start, self.boundaries.start = self.boundaries.start, None
        if start is not None and now - start >= SHORTEST:
            self._segment(start, now)

    def _segment(self, start: float, stop: float) -> None:
        waiting = next((j for j in self._jots if j.kind == "observation"), None)
        if waiting is not None:  # nobody has come to write it: one line about both
            self._jots.remove(waiting)
            start = waiting.start
        self._jots.appendleft(Jot(prompts.note_request(start), "observation", start, stop))
        for question in self.standing:
            before = self._thoughts.get(question)
            thought = prompts.with_notes([(stop, before.line)] if before else [], question)
            self._jots.append(Jot(thought, "hypothesis", start, stop, question))
        while len(self._jots) > WAITING:
            self._jots.pop()
            self.lost += 1

    def take(self) -> Jot:
        """The next line to be written."""
        return self._jots.popleft()

    def put_back(self, jot: Jot) -> None:
        """There was no room for it yet."""
        self._jots.appendleft(jot)

    def wrote(self, jot: Jot, text: str) -> Iterable[Note]:
        """A line was written; the notes that it makes, if any."""
        line = " ".join(text.split())
        if line.lower().rstrip(".") in ("", prompts.NOTHING):
            return
        if jot.kind == "hypothesis":
            before = self._thoughts.get(jot.about)
            if before is not None and before.line == line:
                return
            note = self.notes.add(jot.start, jot.stop, jot.kind, f"{jot.about} {line}")
            self._thoughts[jot.about] = Thought(line, note)
        else:
            note = self.notes.add(jot.start, jot.stop, jot.kind, line)
        yield note
        if jot.kind == "observation":
            self._loose.append(note)
            if len(self._loose) == CHAPTER:
                yield self._chapter()

    def _chapter(self) -> Note:
        """What ten observations said, each thing once. No model is asked: it could only guess at them again."""
        parts, self._loose = self._loose, []
        text = "; ".join(dict.fromkeys(note.text for note in parts))
        short = " ".join(text.split()[:CHAPTER_WORDS])
        return self.notes.add(parts[0].start, parts[-1].stop, "chapter", short, [note.id for note in parts])

    def for_question(self, question: str, now: float, window: Iterable[Span]) -> list[Note]:
        """The notes that matter to a question asked at `now` and that are not about what it sees anyway; of a question
        that was kept track of, what was last thought of it, whatever it sees."""
        named, seen = [t.span for t in time_spans(question, now)], list(window)
        spans: list[Span | None] = [*named] or [None]
        found = {n.id: n for span in spans for n in self.notes.find(question, between=span, limit=SHOWN)}
        for span in named:  # of a stretch that is named, everything matters
            found |= {n.id: n for n in self.notes.find(between=span, limit=SHOWN)}
        inside = [n for n in found.values() if not any(a <= n.start and n.stop <= b for a, b in seen)]
        best = sorted(inside, key=lambda note: -note.score)[:SHOWN]
        thought = self._thoughts.get(question)
        if thought is not None:  # what was thought of it before that is out of date
            others = [n for n in best if n.kind != "hypothesis" or not n.text.startswith(question)]
            best = [*others[: SHOWN - 1], replace(thought.note, score=math.inf)]
        return sorted(best, key=lambda note: (note.start, note.id))
