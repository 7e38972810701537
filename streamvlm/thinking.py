"""Thinking: what a stream does by itself, as its user sees it: watches, narration, notes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from streamvlm.closing import Closing
from streamvlm.engine.alarm import Alarm, Rule
from streamvlm.engine.checks import check_text, check_watch
from streamvlm.engine.courier import Courier
from streamvlm.engine.engine import Engine
from streamvlm.engine.events import StreamEvent, WatchFired
from streamvlm.engine.stream import StreamState
from streamvlm.engine.triggers.base import Trigger
from streamvlm.engine.triggers.usual import usual_trigger
from streamvlm.engine.watches import Sentry, Watch, condition_in
from streamvlm.errors import StreamClosed
from streamvlm.memory.notes import KINDS, Note, NoteKind, Notes
from streamvlm.settings import check_options


class Thinking(Closing):
    """The half of a Stream that is not asked. Every method may be called from any thread."""

    def __init__(self, engine: Engine, state: StreamState) -> None:
        self._engine = engine
        self._state = state
        self._calls = Courier()
        self._closed = False

    @abstractmethod
    def _emit(self, event: StreamEvent) -> None:
        """Tell everybody who listens."""

    def _submit(self, command: Callable[[], None]) -> None:
        if self._closed:
            raise StreamClosed("the stream is closed")
        self._engine.submit(command)

    def watch(
        self,
        condition: str,
        *,
        on_fire: Callable[[WatchFired], object] | None = None,
        explain: str | None = None,
        trigger: Trigger | None = None,
        **rule: Any,  # noqa: ANN401
    ) -> Watch:
        """Be told when a condition comes true: "tell me when the sign shows 42", or "the sign shows 42".

        `on_fire` is called on a thread of its own. `explain` is a question that is asked the moment it fires.
        `rule` are fields of Rule: `count` (fire so often at most), `for_at_least` seconds, `until` a moment of the
        stream, `cooldown` seconds between two times. `trigger` is how to know; by default the model is asked at every
        change of the picture, or what it was trained for is used (`usual_trigger`). A file is watched as far as it is
        played (`wait`, `play`, `events`).

        Raises:
            ValueError: an empty or too long condition, a wrong rule.
            StreamClosed: the stream is closed.
        """
        check_options(rule, Rule)
        state = self._state
        condition = condition_in(condition)
        watch = Watch(condition, trigger or usual_trigger(state.model, condition), Rule(**rule), explain)
        check_watch(state, watch)
        if explain is not None:
            check_text(state, explain, state.config.max_question_tokens)

        def tell(event: WatchFired) -> None:
            self._emit(event)
            if on_fire is not None:
                self._calls.call(on_fire, event)

        def add() -> None:
            if state.ended:
                watch.end(state.error or StreamClosed("the stream has ended"))
            else:
                state.mind.add(Sentry(watch, Alarm(watch.rule), tell, due=state.frames > 0))  # it may hold already

        self._submit(add)
        return watch

    def narrate(self, every: float | None = 1.0) -> None:
        """Have what happened said every so many seconds of stream time, as `Narrated` events; None: no more.

        Raises:
            ValueError: not a length of time.
            StreamClosed: the stream is closed.
        """
        if every is not None and not 0 < every < math.inf:
            raise ValueError(f"every={every} must be more than 0 seconds, or None")
        self._submit(lambda: self._state.mind.narrate(every))

    def notes(
        self,
        query: str | None = None,
        *,
        between: tuple[float, float] | None = None,
        kinds: Collection[NoteKind] = KINDS,
        limit: int = 20,
    ) -> tuple[Note, ...]:
        """What was noted: the lines that match `query` best, without one the newest; oldest first.

        `between` (start, stop) is a stretch of the stream they must touch, `kinds` some of observation, hypothesis,
        answer and chapter.

        Raises:
            ValueError: the stream takes no notes, or an unknown kind.
        """
        wrong = [kind for kind in kinds if kind not in KINDS]
        if wrong:
            raise ValueError(f"kinds={wrong} are not among {', '.join(KINDS)}")
        return self._notes().find(query, between=between, kinds=kinds, limit=limit)

    def keep_track(self, question: str) -> None:
        """Think about a question while watching ("how many people came in?"): after every segment the model looks at
        its last thought and writes the next, a note of kind hypothesis. Asked later, it is shown them.

        Raises:
            ValueError: the stream takes no notes, an empty or too long question.
            StreamClosed: the stream is closed.
        """
        self._notes()
        check_text(self._state, question, self._state.config.background_tokens // 2, "half of background_tokens")
        taker = self._state.mind.taker
        assert taker is not None
        self._submit(lambda: taker.standing.append(question))

    def _notes(self) -> Notes:
        if self._state.mind.taker is None:
            raise ValueError("this stream takes no notes: watch it with notes=True")
        return self._state.mind.taker.notes
