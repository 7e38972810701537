"""Interests: what is wanted of a stream now, as far as its pruning was told to go by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamvlm.engine.stream import StreamState


def publish(stream: StreamState) -> None:
    """Let the encode thread know; it sees the texts with the next patch that it encodes."""
    if stream.economy is not None:
        stream.economy.interests.texts = texts_of(stream)


def texts_of(stream: StreamState) -> tuple[str, ...]:
    """Questions that wait for their moment, what is watched for, and what is kept track of."""
    asked = [question.answer.question for question in stream.waiting]
    watched = [
        watch.trigger.text(watch.condition)
        for watch in (sentry.watch for sentry in stream.mind.sentries)
        if not watch.over
    ]
    tracked = [] if stream.mind.taker is None else stream.mind.taker.standing
    return tuple(dict.fromkeys((*watched, *tracked, *asked)))
