"""Asking: how a question gets its snapshot, whoever asks it."""

from __future__ import annotations

from streamvlm.engine.events import AnswerStarted
from streamvlm.engine.moments import moment_of
from streamvlm.engine.questions import Question
from streamvlm.engine.reader import Lookup, Reader, make_reader
from streamvlm.engine.stream import EPSILON, StreamState
from streamvlm.errors import BusyError, ModelError, StreamClosed
from streamvlm.memory.window import Window
from streamvlm.models.attention import Probe


def fork_due(stream: StreamState) -> None:
    """Give every question whose moment has come its snapshot, oldest question first."""
    if stream.window is None or (stream.frames == 0 and not stream.has_past):
        if stream.ended and not stream.has_past:
            _fail_waiting(stream, stream.error or StreamClosed("the stream ended before it showed a frame"))
        return
    nearest = stream.arrived
    for question in list(stream.waiting):
        reached = question.at is None or question.at <= stream.now + EPSILON
        passed = nearest is not None and question.at is not None and nearest.last_pts > question.at + EPSILON
        if reached or passed or stream.ended:
            stream.waiting.remove(question)
            _fork(stream, question, stream.window)


def _fork(stream: StreamState, question: Question, window: Window) -> None:
    if stream.refusing is not None and not stream.ended:
        stream.finish(question.answer, "failed", BusyError(stream.refusing))
        return
    reader = _reader(stream, question, window, stream.config.max_answer_tokens)
    if reader is None:
        return
    if stream.memory is not None and not stream.memory.empty and not window.policy.recompute:
        reader.lookup = Lookup(Probe.of(stream.model.text_spec.layers), question.between)
    reader.writes = question.writes
    reader.account.enter(r.account for r in stream.readers)
    stream.readers.append(reader)
    question.answer.start(stream.now, window.spans)
    stream.emit(AnswerStarted(stream.now, question.answer))


def _reader(stream: StreamState, question: Question, window: Window, room: int) -> Reader | None:
    try:
        notes = stream.mind.notes_for(stream, question.answer.question) if question.writes else []
        moment = moment_of(question.answer.question, question.between, stream.now)
        reader = make_reader(stream.model, window, question.answer, question.sampling, room, moment, notes)
    except (RuntimeError, ValueError) as error:  # out of memory: nobody else's answer need fail
        stream.finish(question.answer, "failed", ModelError(f"the answer could not be begun: {error}"))
        return None
    reader.account.owner = stream.asking
    return reader


def _fail_waiting(stream: StreamState, error: Exception) -> None:
    for question in stream.waiting:
        stream.finish(question.answer, "failed", error)
    stream.waiting.clear()
