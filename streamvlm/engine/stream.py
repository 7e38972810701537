"""StreamState: everything one stream owns inside the engine. Touched by the engine thread only."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from streamvlm.engine.answer import Answer, Status
from streamvlm.engine.capacity import Budget, open_window, plan_budget, size_of
from streamvlm.engine.counters import count, tell
from streamvlm.engine.events import (
    AnswerDone,
    AnswerPiece,
    LoadChanged,
    StreamEnded,
    StreamEvent,
    StreamStats,
)
from streamvlm.engine.ladder import STRETCH, Ladder, Rung
from streamvlm.engine.longterm import LongTermMemory
from streamvlm.engine.losses import gap_text, report_losses, skip
from streamvlm.engine.mind import Mind
from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.planning import Account
from streamvlm.engine.questions import EPSILON, Perception, Question
from streamvlm.engine.rationing import Rationing
from streamvlm.engine.reader import Reader
from streamvlm.errors import ModelError, StreamClosed
from streamvlm.memory.window import Window
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.savings import NOTHING_SAVED, Savings
from streamvlm.settings import WatchConfig
from streamvlm.types import Kind, Segment

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class StreamState:
    """One stream: its eyes, its window, its questions and readers, its counters."""

    model: VisionLanguageModel
    config: WatchConfig
    perceiver: Perceiver
    emit: Callable[[StreamEvent], None]
    paced: bool
    play_until: float = 0.0  # an unpaced file is perceived as far as somebody asked, and no further
    memory: LongTermMemory | None = None
    clock: Callable[[], float] = time.monotonic
    mind: Mind = field(default_factory=Mind)
    ladder: Ladder | None = None  # None: a file waits instead
    economy: Economy | None = None  # None: nothing is left out
    rationing: Rationing | None = None  # None: every frame is shown as it is
    saved: Savings = NOTHING_SAVED
    arrived: Block | None = None  # the next block, as of `look`
    window: Window | None = None
    budget: Budget | None = None
    first: float = math.inf  # seconds, when the first block could be seen
    now: float = -math.inf  # presentation time of the newest frame in the window
    ended: bool = False
    closed: bool = False  # nothing can be asked any more
    error: Exception | None = None
    waiting: list[Question] = field(default_factory=list)  # for their moment
    readers: list[Reader] = field(default_factory=list)  # with a snapshot each, oldest first
    background: list[Reader] = field(default_factory=list)  # those of the engine's own, oldest first
    frames: int = 0
    frames_dropped: int = 0
    gap_seconds: float = 0.0
    stats: StreamStats = field(default_factory=StreamStats)  # as of the latest commit
    watching: Account = field(default_factory=Account)  # what its perception was served
    asking: Account = field(default_factory=Account)  # what its readers were served
    perceived_last: bool = False  # whether the latest step perceived, for the baseline schedules
    written: int = 0  # tokens since the newest frame, for the same
    block_rows: int = 0  # of the newest block
    rows_thought: int = 0  # of the readers in `background`
    missed: float = 0.0  # seconds not perceived since then
    refusing: str | None = None  # why questions are turned away now

    # Questions

    def look(self) -> None:
        """See which block comes next, once for all decisions of a step: one that arrives between two of them could
        otherwise be perceived before a question that must not see it was given its snapshot."""
        blocks = self.perceiver.blocks
        if self.ladder is not None and self.ladder.rung >= Rung.NEWEST_ONLY and len(blocks) > 1:
            skip(self, blocks.take(len(blocks) - 1)[0])
        self.arrived = blocks.peek()

    @property
    def active(self) -> list[Reader]:
        """The readers that are written now; later ones wait, but their snapshots are already theirs."""
        return self.readers[: self.config.max_readers]

    @property
    def has_past(self) -> bool:
        """Whether there is a past to be asked about before the first frame."""
        return self.memory is not None and not self.memory.empty

    def reads(self, reader: Reader) -> bool:
        """Whether a reader is still open."""
        return reader in self.readers or reader in self.background

    def drop_cancelled(self) -> None:
        """End the answers that their callers no longer want."""
        for question in list(self.waiting):
            if question.answer.cancel_requested:
                self.waiting.remove(question)
                self.finish(question.answer, "cancelled")
        for reader in [*self.readers, *self.background]:
            if reader.answer.cancel_requested:
                self.close_reader(reader, "cancelled")

    def close_reader(self, reader: Reader, status: Status | None = None) -> None:
        """Free a reader's slots; `status` overrides the one it reached by itself."""
        assert self.window is not None
        (self.readers if reader in self.readers else self.background).remove(reader)
        if status is not None:
            reader.answer.finish(status)
        if reader.on_done is None:
            self.emit(AnswerDone(self.now, reader.answer))
            if reader.noted:
                self.mind.answered(self, reader.answer)
        else:
            reader.on_done(reader.answer, reader)
        self.window.close_reader(reader.handle)  # last: what is concluded from it may be explained from its snapshot

    def finish(self, answer: Answer, status: Status, error: Exception | None = None) -> None:
        """End an answer that has no reader, or no longer."""
        if status == "failed" and answer.cancel_requested:
            status, error = "cancelled", None
        answer.finish(status, error)
        self.emit(AnswerDone(self.now, answer))

    def open_answers(self) -> Iterator[Answer]:
        """What somebody waits for."""
        yield from (r.answer for r in self.readers)
        yield from (q.answer for q in self.waiting)

    # Perception

    def may_perceive(self) -> bool:
        """Whether the next block is here and its turn has come."""
        block = self.arrived
        if block is None:
            return False
        if self.paced or self.window is None:
            return True
        # A file can wait, so nothing of it goes by unconsidered.
        return not self.background and block.last_pts <= self.play_until + EPSILON

    def open_past(self) -> Perception | None:
        """The opening text alone, for a resumed stream that will show no frame."""
        if self.window is not None or not (self.ended and self.has_past and self.waiting):
            return None
        assert self.memory is not None
        prefix = self.model.text_segment(self.model.prefix_layout(), Kind.SINK)
        self.window = self._make_window(len(prefix), 1)
        self.now = self.memory.last_moment
        return Perception(None, self.window.advance([prefix]))

    def perceive(self) -> Perception | None:
        """Take the next block and place it in the window, if there is room; never wait for a reader when paced."""
        block = self.arrived
        assert block is not None
        segments = [*gap_text(self, block), self.model.frame_segment(block.tokens)]
        window = self.window
        if window is None:
            prefix = self.model.text_segment(self.model.prefix_layout(), Kind.SINK, block.tokens.pts)
            window = self.window = self._make_window(len(prefix), len(segments[-1]))
            if len(prefix):
                segments.insert(0, prefix)
        if not self._make_room(window, segments):
            return None
        self.perceiver.blocks.take(1)
        self.written, self.block_rows = 0, sum(len(s) for s in segments)
        report_losses(self, block)
        self.missed = 0.0
        return Perception(block, window.advance(segments))

    def _make_window(self, prefix: int, block: int) -> Window:
        self.budget = plan_budget(self.config, size_of(self, prefix, block))
        window = open_window(self.model, self.config, self.budget)
        if self.memory is not None:
            window.on_evict = self.memory.taker(self.economy)
        return window

    def _make_room(self, window: Window, segments: list[Segment]) -> bool:
        """A paced stream finishes its oldest readers early rather than wait for them."""
        while not self._has_room(window, segments):
            oldest = next((r for r in (*self.background, *self.readers)), None)
            if oldest is None:
                return True  # nothing pins it: let the window say what does not fit
            if not self.paced:
                return False
            logger.warning("%r pins more than pinned_seconds=%s allows", oldest.answer, self.config.pinned_seconds)
            self.close_reader(oldest, "truncated")
        return True

    def _has_room(self, window: Window, segments: list[Segment]) -> bool:
        assert self.budget is not None
        promised = self.budget.readers - window.cache.private  # a reader's rows fit whenever its turn comes
        return window.cache.free - promised >= window.slots_needed(segments)

    def commit(self, perception: Perception, step_seconds: float) -> None:
        """The step has written the block: it is part of what the stream has seen."""
        assert self.window is not None
        self.window.commit()
        if perception.block is not None:
            self.saw(perception.block, sum(len(s) for s, _ in perception.placed), step_seconds)

    def saw(self, block: Block, rows: int, step_seconds: float) -> None:
        """A block is part of what the stream has seen; one in which nothing is new took no rows and no step."""
        assert self.window is not None
        self.now = block.last_pts
        self.first = min(self.first, self.now)
        self.frames += block.frames
        self.saved += block.saved
        self.take_stats()
        lag = None if block.captured is None else self.clock() - block.captured
        tell(self, block, rows, lag, step_seconds)
        if self.ladder is not None and lag is not None:
            late = lag - (block.last_pts - block.tokens.pts)  # a patch of two frames cannot be there before its second
            if self.ladder.see(self.clock(), late, len(block.dropped)):
                self._step_on(self.ladder.rung)
        self.mind.saw(self, block)

    def _step_on(self, rung: Rung) -> None:
        logger.info("keeping up: %s", rung)
        self.mind.ease(notes=rung < Rung.NO_NOTES, stretch=STRETCH if rung >= Rung.RARE_WATCHES else 1.0)
        self.emit(LoadChanged(self.now, int(rung), str(rung)))

    def wrote(self, reader: Reader, logits: Tensor) -> None:
        """A reader's rows are through the model: it chooses its next token from logits [vocabulary]."""
        self.written += reader.on_done is None
        try:
            piece = reader.choose(logits)
        except (RuntimeError, ValueError) as error:  # an overflow in half precision: nobody else's answer need fail
            piece = ""
            reader.answer.finish("failed", ModelError(f"no token could be chosen: {error}"))
        if piece and reader.on_done is None:
            self.emit(AnswerPiece(self.now, reader.answer, piece))
        if reader.answer.done:
            self.close_reader(reader)

    # The end

    def note_end(self) -> None:
        """See whether the source is exhausted."""
        blocks, thinking = self.perceiver.blocks, self.background or self.mind.pending
        if self.ended or not blocks.finished or thinking:
            return
        self.mind.last_words(self)
        if not self.background:
            self.end(blocks.error)

    def end(self, error: Exception | None) -> None:
        """Perceive nothing more; what was seen can still be asked about."""
        self.ended = True
        self.error = error
        self.mind.close()
        self.perceiver.stop()
        if self.error is not None:
            logger.info("stream ended: %s", self.error)  # the caller is told by the event and by `error`
        self.take_stats()
        self.emit(StreamEnded(self.now, self.stats, None if self.error is None else str(self.error)))

    def close(self, error: Exception) -> None:
        """End everything that is still open."""
        self.closed = True
        for reader in self.background:  # nobody waits for them
            reader.answer.finish("failed", error)
        for answer in self.open_answers():  # their readers' slots go with the cache
            self.finish(answer, "failed", error)
        for opened in (self.readers, self.background, self.waiting):
            opened.clear()
        if not self.ended:
            self.end(None if isinstance(error, StreamClosed) else error)
        self.take_stats()
        if self.memory is not None:
            self.memory.stop(self.window if isinstance(error, StreamClosed) else None)
        self.window = None  # the memory goes now, whoever still holds the stream

    def check(self) -> int:
        """Assert that every slot and token is accounted for, between steps; returns the slots that are in use beside
        the window's."""
        if self.window is None:
            return 0
        self.window.check()
        return self.window.cache.used - len(self.window)

    def take_stats(self) -> None:
        """Take the counters that other threads may read, all of one moment."""
        self.stats = count(self)
