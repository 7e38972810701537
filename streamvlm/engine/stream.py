"""StreamState: everything one stream owns inside the engine. Touched by the engine thread only."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from streamvlm.engine.answer import Answer, Status
from streamvlm.engine.capacity import Budget, StreamSize, open_window, plan_budget
from streamvlm.engine.events import (
    AnswerDone,
    AnswerPiece,
    AnswerStarted,
    FramePerceived,
    FramesDropped,
    Gap,
    StreamEnded,
    StreamEvent,
    StreamStats,
)
from streamvlm.engine.longterm import LongTermMemory
from streamvlm.engine.perceiver import Block, Perceiver
from streamvlm.engine.questions import Perception, Question
from streamvlm.engine.reader import Lookup, Reader, make_reader
from streamvlm.errors import ModelError, StreamClosed
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import WatchConfig
from streamvlm.types import Kind, Segment

logger = logging.getLogger(__name__)

EPSILON = 1e-6  # seconds


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
    frames: int = 0
    frames_dropped: int = 0
    gap_seconds: float = 0.0
    stats: StreamStats = field(default_factory=StreamStats)  # as of the latest commit
    perceived_last: bool = False  # whether the latest step perceived, for the alternating schedule

    # Questions

    def look(self) -> None:
        """See which block comes next, once for all decisions of a step: one that arrives between two of them could
        otherwise be perceived before a question that must not see it was given its snapshot."""
        self.arrived = self.perceiver.blocks.peek()

    def fork_due(self) -> None:
        """Give every question whose moment has come its snapshot, oldest question first."""
        if self.window is None or (self.frames == 0 and not self.has_past):
            if self.ended and not self.has_past:
                self._fail_waiting(self.error or StreamClosed("the stream ended before it showed a frame"))
            return
        nearest = self.arrived
        for question in list(self.waiting):
            reached = question.at is None or question.at <= self.now + EPSILON
            passed = nearest is not None and question.at is not None and nearest.last_pts > question.at + EPSILON
            if reached or passed or self.ended:
                self.waiting.remove(question)
                self._fork(question, self.window)

    def _fork(self, question: Question, window: Window) -> None:
        room = self.config.max_answer_tokens
        try:
            reader = make_reader(self.model, window, question.answer, question.sampling, room)
        except (RuntimeError, ValueError) as error:  # out of memory: nobody else's answer need fail
            self.finish(question.answer, "failed", ModelError(f"the answer could not be begun: {error}"))
            return
        if self.memory is not None and not self.memory.empty and not window.policy.recompute:
            reader.lookup = Lookup(Probe.of(self.model.text_spec.layers), question.between)
        reader.writes = question.writes
        self.readers.append(reader)
        question.answer.start(self.now, window.spans)
        self.emit(AnswerStarted(self.now, question.answer))

    @property
    def active(self) -> list[Reader]:
        """The readers that are written now; later ones wait, but their snapshots are already theirs."""
        return self.readers[: self.config.max_readers]

    @property
    def has_past(self) -> bool:
        """Whether there is a past to be asked about before the first frame."""
        return self.memory is not None and not self.memory.empty

    def drop_cancelled(self) -> None:
        """End the answers that their callers no longer want."""
        for question in list(self.waiting):
            if question.answer.cancel_requested:
                self.waiting.remove(question)
                self.finish(question.answer, "cancelled")
        for reader in list(self.readers):
            if reader.answer.cancel_requested:
                self.close_reader(reader, "cancelled")

    def close_reader(self, reader: Reader, status: Status | None = None) -> None:
        """Free a reader's slots; `status` overrides the one it reached by itself."""
        assert self.window is not None
        self.readers.remove(reader)
        self.window.close_reader(reader.handle)
        if status is not None:
            reader.answer.finish(status)
        self.emit(AnswerDone(self.now, reader.answer))

    def finish(self, answer: Answer, status: Status, error: Exception | None = None) -> None:
        """End an answer that has no reader, or no longer."""
        if status == "failed" and answer.cancel_requested:
            status, error = "cancelled", None
        answer.finish(status, error)
        self.emit(AnswerDone(self.now, answer))

    def _fail_waiting(self, error: Exception) -> None:
        for question in self.waiting:
            self.finish(question.answer, "failed", error)
        self.waiting.clear()

    # Perception

    def may_perceive(self) -> bool:
        """Whether the next block is here and its turn has come."""
        block = self.arrived
        if block is None:
            return False
        return self.paced or self.window is None or block.last_pts <= self.play_until + EPSILON

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
        segments = [self.model.frame_segment(block.tokens)]
        window = self.window
        if window is None:
            prefix = self.model.text_segment(self.model.prefix_layout(), Kind.SINK, block.tokens.pts)
            window = self.window = self._make_window(len(prefix), len(segments[0]))
            if len(prefix):
                segments.insert(0, prefix)
        if not self._make_room(window, segments):
            return None
        self.perceiver.blocks.take(1)
        self._report_losses(block)
        return Perception(block, window.advance(segments))

    def _make_window(self, prefix: int, block: int) -> Window:
        size = StreamSize(prefix, block, self.model.pixels.temporal)
        self.budget = plan_budget(self.config, size)
        window = open_window(self.model, self.config, self.budget)
        if self.memory is not None:
            window.on_evict = self.memory.keep
        return window

    def _make_room(self, window: Window, segments: list[Segment]) -> bool:
        """A paced stream finishes its oldest readers early rather than wait for them."""
        while not self._has_room(window, segments):
            if not self.readers:
                return True  # nothing pins it: let the window say what does not fit
            if not self.paced:
                return False
            logger.warning("an answer pins more than pinned_seconds=%s allows: truncated", self.config.pinned_seconds)
            self.close_reader(self.readers[0], "truncated")
        return True

    def _has_room(self, window: Window, segments: list[Segment]) -> bool:
        assert self.budget is not None
        promised = self.budget.readers - window.cache.private  # a reader's rows fit whenever its turn comes
        return window.cache.free - promised >= window.slots_needed(segments)

    def _report_losses(self, block: Block) -> None:
        if block.dropped:
            self.frames_dropped += len(block.dropped)
            self.emit(FramesDropped(block.dropped[0], len(block.dropped)))
        if block.gap > 0:
            self.gap_seconds += block.gap
            self.emit(Gap(block.tokens.pts, block.gap))

    def commit(self, perception: Perception, step_seconds: float) -> None:
        """The step has written the block: it is part of what the stream has seen."""
        assert self.window is not None
        self.window.commit()
        block = perception.block
        if block is None:
            return
        self.now = block.last_pts
        self.first = min(self.first, self.now)
        self.frames += block.frames
        self.take_stats()
        lag = None if block.captured is None else time.monotonic() - block.captured
        self.emit(
            FramePerceived(
                pts=self.now,
                frames=block.frames,
                lag=lag,
                step_seconds=step_seconds,
                tokens=sum(len(s) for s, _ in perception.placed),
                window_tokens=len(self.window),
                slots_used=self.window.cache.used,
                capacity=self.window.cache.shape.capacity,
            )
        )

    def wrote(self, reader: Reader, logits: Tensor) -> None:
        """A reader's rows are through the model: it chooses its next token from logits [vocabulary]."""
        try:
            piece = reader.choose(logits)
        except (RuntimeError, ValueError) as error:  # an overflow in half precision: nobody else's answer need fail
            piece = ""
            reader.answer.finish("failed", ModelError(f"no token could be chosen: {error}"))
        if piece:
            self.emit(AnswerPiece(self.now, reader.answer, piece))
        if reader.answer.done:
            self.close_reader(reader)

    # The end

    def note_end(self) -> None:
        """See whether the source is exhausted."""
        blocks = self.perceiver.blocks
        if not self.ended and blocks.finished:
            self.end(blocks.error)

    def end(self, error: Exception | None) -> None:
        """Perceive nothing more; what was seen can still be asked about."""
        self.ended = True
        self.error = error
        self.perceiver.stop()
        if self.error is not None:
            logger.info("stream ended: %s", self.error)  # the caller is told by the event and by `error`
        self.take_stats()
        self.emit(StreamEnded(self.now, self.stats, None if self.error is None else str(self.error)))

    def close(self, error: Exception) -> None:
        """End everything that is still open."""
        self.closed = True
        for reader in self.readers:  # their slots go with the cache
            self.finish(reader.answer, "failed", error)
        self.readers.clear()
        self._fail_waiting(error)
        if not self.ended:
            self.end(None if isinstance(error, StreamClosed) else error)
        self.take_stats()
        if self.memory is not None:
            self.memory.stop()
        self.window = None  # the memory goes now, whoever still holds the stream

    def take_stats(self) -> None:
        """Take the counters that other threads may read, all of one moment."""
        if self.window is None:
            self.stats = replace(self.stats, frames_dropped=self.frames_dropped, gap_seconds=self.gap_seconds)
            return
        count, cache = self.window.count, self.window.cache
        lost = 0 if self.memory is None else self.memory.lost_tokens  # taken, and then not written after all
        self.stats = StreamStats(
            self.frames,
            self.frames_dropped,
            self.gap_seconds,
            tokens_seen=count.seen,
            tokens_window=len(self.window),
            tokens_stored=count.stored - lost,
            tokens_dropped=count.dropped + lost,
            peak_slots=cache.peak_used,
            capacity=cache.shape.capacity,
            rebases=self.window.rebases,
        )
