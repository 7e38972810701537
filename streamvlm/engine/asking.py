"""Asking: how a question gets its snapshot, whoever asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamvlm.engine.events import AnswerStarted
from streamvlm.engine.live import begin
from streamvlm.engine.moments import moment_of
from streamvlm.engine.questions import EPSILON, Question
from streamvlm.engine.reader import Briefing, Lookup, Reader, make_reader
from streamvlm.errors import BusyError, ModelError, StreamClosed
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState


def fork_due(stream: StreamState) -> None:
    """Give every question whose moment has come its snapshot, oldest question first."""
    if stream.window is None or (stream.frames == 0 and not stream.has_past):
        if stream.ended and not stream.has_past:
            _fail_waiting(stream, stream.error or StreamClosed("the stream ended before it showed a frame"))
        return
    nearest = stream.arrived
    for question in list(stream.waiting):
        if question.terms.notes and stream.mind.writing and not stream.paced:
            continue  # a file can wait: what is noted of what happened by then does not depend on who asks when
        reached = question.at is None or question.at <= stream.now + EPSILON
        passed = nearest is not None and question.at is not None and nearest.last_pts > question.at + EPSILON
        if reached or passed or stream.ended:
            stream.waiting.remove(question)
            fork(stream, question, stream.window)


def fork(stream: StreamState, question: Question, window: Window, like: Reader | None = None) -> None:
    """Give a question its snapshot: the window as it is now, or as the reader `like` sees it."""
    if stream.refusing is not None and not stream.ended:
        stream.finish(question.answer, "failed", BusyError(stream.refusing))
        return
    reader = _reader(stream, question, window, like)
    if reader is None:
        return
    stored = stream.memory is not None and not stream.memory.empty
    if stored and question.terms.memory and not window.policy.recompute:
        reader.lookup = Lookup(Probe.of(stream.model.text_spec.layers), question.between)
    reader.writes, reader.noted = question.writes, question.terms.noted
    if stream.config.live != "snapshot" and like is None:  # what explains a moment is about that moment
        begin(reader, window, stream.config.live)
    reader.account.enter(r.account for r in stream.readers)
    stream.readers.append(reader)
    as_of, spans = (stream.now, window.spans) if like is None else (like.answer.as_of, list(like.answer.evidence))
    assert as_of is not None
    question.answer.start(as_of, spans)
    stream.emit(AnswerStarted(stream.now, question.answer))


def _reader(stream: StreamState, question: Question, window: Window, like: Reader | None) -> Reader | None:
    try:
        shown = question.writes and question.terms.notes
        notes = stream.mind.notes_for(stream, question.answer.question) if shown else []
        moment = moment_of(question.answer.question, question.between, stream.now)
        room, briefing = stream.config.max_answer_tokens, Briefing(moment, notes, like)
        reader = make_reader(stream.model, window, question.answer, question.sampling, room, briefing)
    except (RuntimeError, ValueError) as error:  # out of memory: nobody else's answer need fail
        stream.finish(question.answer, "failed", ModelError(f"the answer could not be begun: {error}"))
        return None
    reader.account.owner = stream.asking
    return reader


def _fail_waiting(stream: StreamState, error: Exception) -> None:
    for question in stream.waiting:
        stream.finish(question.answer, "failed", error)
    stream.waiting.clear()
