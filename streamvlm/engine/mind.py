"""Mind: what a stream thinks by itself. It looks at every block that was committed, decides what is worth asking the
model, asks as readers of low priority, and turns the replies into events. Perception never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from torch import Tensor

from streamvlm import prompts
from streamvlm.engine.answer import Answer
from streamvlm.engine.asking import fork
from streamvlm.engine.background import Request, ask_self
from streamvlm.engine.events import Narrated, NoteTaken
from streamvlm.engine.narration import LIMIT, SECOND, Narration
from streamvlm.engine.notetaker import LIMIT as NOTE_LIMIT
from streamvlm.engine.notetaker import NoteTaker
from streamvlm.engine.perceiver import Block
from streamvlm.engine.planning import Sort
from streamvlm.engine.questions import Question
from streamvlm.engine.reader import Reader
from streamvlm.engine.sight import Sight
from streamvlm.engine.triggers.base import ASKING, Evidence, Reads
from streamvlm.engine.watches import Sentry
from streamvlm.errors import StreamClosed
from streamvlm.memory.notes import NAME, Notes
from streamvlm.settings import SamplingConfig, WatchConfig

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Mind:
    """One stream's watches, narration and notes. Touched by the engine thread only."""

    narration: Narration = field(default_factory=lambda: Narration(told=False))
    sentries: list[Sentry] = field(default_factory=list)
    stretch: float = 1.0  # watches look less often by this factor, under load
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  # of the answers that explain a watch
    sight: Sight = field(default_factory=Sight)
    taker: NoteTaker | None = None  # None: nothing is noted

    @classmethod
    def of(cls, config: WatchConfig, sampling: SamplingConfig) -> Self:
        """What the settings ask for.

        Raises:
            StoreError: there are notes already, and they cannot be read.
        """
        path = None if config.store is None else Path(config.store) / NAME
        taker = NoteTaker(Notes(path)) if config.notes else None
        return cls(Narration(told=config.narrate), sampling=sampling, taker=taker)

    @property
    def thinks(self) -> bool:
        """Whether there is anything to think about."""
        return self.narrates or bool(self.sentries) or self.taker is not None

    @property
    def narrates(self) -> bool:
        """Whether somebody wants to know what happens, second by second."""
        return self.narration.told or self._watches_lines

    @property
    def _watches_lines(self) -> bool:
        return any(True for _ in self._reading("line"))

    @property
    def listens(self) -> bool:
        """Whether somebody wants to know what the model makes of the newest frame."""
        return any(True for _ in self._reading("frame"))

    @property
    def pending(self) -> bool:
        """Whether there is something to ask that has found no room yet."""
        noting = self.taker is not None and self.taker.due
        return noting or self.narration.due or any(s.due for s in self._reading(*ASKING))

    @property
    def writing(self) -> bool:
        """Whether something that was seen is still to be noted."""
        return self.taker is not None and (self.taker.due or self.taker.asking)

    def _reading(self, *reads: Reads) -> Iterator[Sentry]:
        return (s for s in list(self.sentries) if s.watch.trigger.reads in reads)

    def add(self, sentry: Sentry) -> None:
        """Watch for one more thing."""
        self.sentries.append(sentry)

    def saw(self, stream: StreamState, block: Block) -> None:
        """A block was committed."""
        if not self.thinks:
            return
        change = self.sight.see(block.tokens)
        for sentry in list(self.sentries):
            if sentry.watch.cancelled:
                self.sentries.remove(sentry)
            else:
                sentry.saw(stream.now, change, self.stretch)
        for sentry in self._reading("change"):
            self._look(stream, sentry, Evidence(stream.model, stream.now, change=change))
        if self.narrates:
            self.narration.saw(stream.now, watched=self._watches_lines)
        if self.taker is not None:
            self.taker.saw(stream.now, change)
        self.think(stream)

    def hear(self, stream: StreamState, logits: Tensor, hidden: Tensor) -> None:
        """What the model would say right after the newest frame, float32 [vocabulary], and its state [hidden]."""
        for sentry in self._reading("frame"):
            self._look(stream, sentry, Evidence(stream.model, stream.now, logits=logits, hidden=hidden))

    def think(self, stream: StreamState) -> None:
        """Ask what is due and has room now. All questions of one moment begin in one step."""
        for sentry in self._reading(*ASKING):
            _ask_once(sentry, partial(self._probe, stream, sentry))
        _ask_once(self.narration, partial(self._narrate, stream))
        if self.taker is not None and self.taker.due and not self.taker.asking:
            self._jot(stream, self.taker)

    def last_words(self, stream: StreamState) -> None:
        """Nothing more will be shown; what was shown since the last note is still to be noted."""
        if self.taker is not None:
            self.taker.finish(stream.now)
            self.think(stream)

    def _jot(self, stream: StreamState, taker: NoteTaker) -> None:
        jot = taker.take()

        def done(answer: Answer, reader: Reader | None) -> None:
            taker.asking = False
            if answer.status in ("complete", "truncated"):
                for note in taker.wrote(jot, answer.so_far):
                    stream.emit(NoteTaken(stream.now, note))

        taker.asking = True
        if not ask_self(stream, Request(jot.question, Sort.NOTE, NOTE_LIMIT, done)):
            taker.asking = False
            taker.put_back(jot)

    def notes_for(self, stream: StreamState, question: str) -> list[tuple[float, str]]:
        """(seconds, text) of the notes to show before a question, as many as have room, oldest first."""
        if self.taker is None or stream.window is None:
            return []
        found = self.taker.for_question(question, stream.now, stream.window.spans)
        chosen, room = [], stream.config.notes_tokens
        for note in sorted(found, key=lambda n: -n.score):
            rows = len(stream.model.text_layout(prompts.with_notes([(note.start, note.text)], "")))
            if rows <= room:
                chosen.append(note)
                room -= rows
        return [(n.start, n.text) for n in sorted(chosen, key=lambda n: (n.start, n.id))]

    def answered(self, stream: StreamState, answer: Answer) -> None:
        """Somebody's question was answered: that is worth a note."""
        if (
            self.taker is not None
            and answer.status == "complete"
            and answer.so_far.strip()
            and answer.as_of is not None
        ):
            text = f"{answer.question} {answer.so_far}"
            stream.emit(NoteTaken(stream.now, self.taker.notes.add(answer.as_of, answer.as_of, "answer", text)))

    def narrate(self, every: float | None) -> None:
        """Have what happens told every so many seconds of stream time; None: no more."""
        self.narration.told = every is not None
        self.narration.every = every or SECOND

    def ease(self, *, notes: bool, stretch: float) -> None:
        """Do less, or as much as before."""
        self.stretch = stretch
        if self.taker is not None:
            self.taker.paused = not notes

    def finish_writing(self) -> None:
        """Wait until all notes are on the disk."""
        if self.taker is not None:
            self.taker.notes.close()

    def _probe(self, stream: StreamState, sentry: Sentry) -> bool:
        trigger, moment = sentry.watch.trigger, stream.now
        question, room = trigger.question(sentry.watch.condition), trigger.room(stream.model)

        def read(logits: Tensor, reader: Reader) -> None:
            self._look(stream, sentry, Evidence(stream.model, moment, logits=logits), reader)

        def done(answer: Answer, reader: Reader | None) -> None:
            sentry.asking = False
            if room and _whole(answer, reader):
                self._look(stream, sentry, Evidence(stream.model, moment, line=answer.so_far), reader)

        return ask_self(stream, Request(question, Sort.PROBE, room, done, None if room else read))

    def _narrate(self, stream: StreamState) -> bool:
        done = partial(self._narrated, stream, stream.now)
        return ask_self(stream, Request(prompts.NARRATE, Sort.NARRATION, LIMIT, done))

    def _narrated(self, stream: StreamState, moment: float, answer: Answer, reader: Reader | None) -> None:
        self.narration.asking = False
        if not _whole(answer, reader):
            return
        line, told = self.narration.line(moment, answer.so_far), self.narration.tells(moment)
        if line and told:
            stream.emit(Narrated(moment, line))
        for sentry in self._reading("line"):
            self._look(stream, sentry, Evidence(stream.model, moment, line=line), reader)

    def _look(self, stream: StreamState, sentry: Sentry, seen: Evidence, reader: Reader | None = None) -> None:
        """Evaluate a watch by what a reader saw; without one, by what is in the window now. A trigger that fails, which
        may be a caller's own, ends its watch alone."""
        if sentry.watch.over:
            return
        try:
            since = sentry.look(seen.moment, sentry.watch.trigger.probability(seen))
        except Exception as error:
            logger.exception("%r ends", sentry.watch)
            self.sentries.remove(sentry)
            sentry.watch.end(error)
            return
        if since is not None:
            sentry.fire(seen.moment, since, self._explain(stream, sentry, reader))
        elif sentry.alarm.over:
            sentry.watch.end()
        if sentry.alarm.over:
            self.sentries.remove(sentry)

    def _explain(self, stream: StreamState, sentry: Sentry, reader: Reader | None) -> Answer | None:
        """An answer about the moment it fired, not about the later one at which that was found out."""
        if sentry.watch.explain is None or stream.window is None:
            return None
        answer = Answer(sentry.watch.explain, None, lambda: None, stream.clock)
        fork(stream, Question(answer, self.sampling, None), stream.window, reader)
        return answer

    def close(self) -> None:
        """Nothing more will be seen."""
        for sentry in self.sentries:
            sentry.watch.end(StreamClosed("the stream ended"))
        self.sentries.clear()


def _whole(answer: Answer, reader: Reader | None) -> bool:
    """Whether it was written as far as it may be, and not cut off to make room for a frame."""
    full = reader is not None and len(reader.tokens) >= reader.limit
    return answer.status == "complete" or (answer.status == "truncated" and full)


def _ask_once(one: Sentry | Narration, ask: Callable[[], bool]) -> None:
    """Ask what is due and not being asked; it stays due if there is no room for it now."""
    if one.due and not one.asking:
        one.due, one.asking = False, True  # before it is asked: what can never be asked is over at once
        if not ask():
            one.due, one.asking = True, False
