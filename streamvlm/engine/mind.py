"""Mind: what a stream thinks by itself. It looks at every block that was committed, decides what is worth asking the
model, asks as readers of low priority, and turns the replies into events. Perception never waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from streamvlm import prompts
from streamvlm.engine.answer import Answer
from streamvlm.engine.background import Request, ask_self
from streamvlm.engine.events import Narrated
from streamvlm.engine.narration import LIMIT, Narration
from streamvlm.engine.perceiver import Block
from streamvlm.engine.planning import Sort
from streamvlm.engine.questions import Question
from streamvlm.engine.sight import Sight
from streamvlm.engine.triggers.base import Evidence, Reads
from streamvlm.engine.watches import Sentry
from streamvlm.errors import StreamClosed
from streamvlm.settings import SamplingConfig

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Mind:
    """One stream's watches and narration. Touched by the engine thread only."""

    narration: Narration = field(default_factory=lambda: Narration(on=False))
    sentries: list[Sentry] = field(default_factory=list)
    stretch: float = 1.0  # watches look less often by this factor, under load
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  # of the answers that explain a watch
    sight: Sight = field(default_factory=Sight)

    @property
    def thinks(self) -> bool:
        """Whether there is anything to think about."""
        return self.narration.on or bool(self.sentries)

    @property
    def listens(self) -> bool:
        """Whether somebody wants to know what the model makes of the newest frame."""
        return any(True for _ in self._reading("frame"))

    @property
    def pending(self) -> bool:
        """Whether there is something to ask that has found no room yet."""
        return self.narration.due or any(s.due for s in self._reading("answer"))

    def _reading(self, reads: Reads) -> Iterator[Sentry]:
        return (s for s in list(self.sentries) if s.watch.trigger.reads == reads)

    def add(self, sentry: Sentry) -> None:
        """Watch for one more thing."""
        self.sentries.append(sentry)
        if sentry.watch.trigger.reads == "line":
            self.narration.on = True

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
        self.narration.saw(stream.now)
        self.think(stream)

    def hear(self, stream: StreamState, logits: Tensor, hidden: Tensor) -> None:
        """What the model would say right after the newest frame, float32 [vocabulary], and its state [hidden]."""
        for sentry in self._reading("frame"):
            self._look(stream, sentry, Evidence(stream.model, stream.now, logits=logits, hidden=hidden))

    def think(self, stream: StreamState) -> None:
        """Ask what is due and has room now. All probes of one moment go into one step."""
        for sentry in self._reading("answer"):
            if sentry.due and not sentry.asking:
                sentry.due = not self._probe(stream, sentry)
                sentry.asking = not sentry.due
        if self.narration.due and not self.narration.asking:
            self.narration.due = not self._narrate(stream)
            self.narration.asking = not self.narration.due

    def _probe(self, stream: StreamState, sentry: Sentry) -> bool:
        question, moment = sentry.watch.trigger.question(sentry.watch.condition), stream.now

        def read(logits: Tensor) -> None:
            self._look(stream, sentry, Evidence(stream.model, moment, logits=logits))

        def done(answer: Answer) -> None:
            sentry.asking = False

        return ask_self(stream, Request(question, Sort.PROBE, 0, done, read))

    def _narrate(self, stream: StreamState) -> bool:
        done = partial(self._narrated, stream, stream.now)
        return ask_self(stream, Request(prompts.NARRATE, Sort.NARRATION, LIMIT, done))

    def _narrated(self, stream: StreamState, moment: float, answer: Answer) -> None:
        self.narration.asking = False
        if answer.status not in ("complete", "truncated"):
            return
        line = self.narration.line(moment, answer.so_far)
        if line:
            stream.emit(Narrated(moment, line))
        for sentry in self._reading("line"):
            self._look(stream, sentry, Evidence(stream.model, moment, line=line))

    def _look(self, stream: StreamState, sentry: Sentry, seen: Evidence) -> None:
        """Evaluate a watch; a trigger that fails, which may be a caller's own, ends its watch alone."""
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
            sentry.fire(seen.moment, since, self._explain(stream, sentry))
        elif sentry.alarm.over:
            sentry.watch.end()
        if sentry.alarm.over:
            self.sentries.remove(sentry)

    def _explain(self, stream: StreamState, sentry: Sentry) -> Answer | None:
        if sentry.watch.explain is None:
            return None
        answer = Answer(sentry.watch.explain, None, lambda: None, stream.clock)
        stream.waiting.append(Question(answer, self.sampling, None))
        return answer

    def close(self) -> None:
        """Nothing more will be seen."""
        for sentry in self.sentries:
            sentry.watch.end(StreamClosed("the stream ended"))
        self.sentries.clear()
