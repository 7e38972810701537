"""Recall: a reader's way from its question to stored blocks in its own slots.

snapshot -> the question's rows are read once (probe) -> search on another thread -> blocks placed -> read again
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from streamvlm.engine.evidence import Glimpse, Search
from streamvlm.engine.longterm import outcome
from streamvlm.engine.moments import NEAR, about_now, told
from streamvlm.engine.reader import Reader
from streamvlm.engine.stream import StreamState
from streamvlm.errors import BudgetError
from streamvlm.memory.recalling import recall
from streamvlm.prompts import with_notes

logger = logging.getLogger(__name__)


def readers_with_rows(stream: StreamState) -> list[Reader]:
    """The active readers that take part in the coming step; those whose search is over are given what it found."""
    for reader in stream.active:
        if reader.lookup is not None and reader.lookup.found is not None and reader.lookup.found.done():
            _give(stream, reader)
        if reader.lookup is None and not reader.writes:
            reader.answer.finish("complete")
            stream.close_reader(reader)
    return [r for r in stream.active if r.lookup is None or r.lookup.found is None]


def look_up(stream: StreamState, readers: Sequence[Reader]) -> None:
    """Start the search of every reader whose question has now been read, and take its rows back."""
    for reader in readers:
        lookup = reader.lookup
        if lookup is None or reader.prefilled < len(reader.prompt):
            continue
        assert stream.window is not None and stream.memory is not None and reader.answer.as_of is not None
        stream.window.cache.unplace(reader.handle, reader.prompt.extent)
        reader.prefilled = 0
        answer = reader.answer
        search = Search(answer.question, lookup.probe.query, reader.answer.as_of, answer.evidence, lookup.between)
        pictures = stream.memory.looks.pictures(answer.evidence)
        lookup.in_view = tuple(Glimpse(at, picture) for at, picture in pictures if picture)
        lookup.probed = time.monotonic()
        lookup.found = stream.memory.search(search)


def _give(stream: StreamState, reader: Reader) -> None:
    assert stream.window is not None and reader.lookup is not None and reader.lookup.found is not None
    recalled, begun, alone = outcome(reader.lookup.found), time.monotonic(), _alone(stream, reader)
    lookup, reader.lookup = reader.lookup, None
    if recalled.layers and reader.writes:
        try:
            recall(stream.window, reader.handle, recalled.layers, alone=alone)
        except BudgetError as error:  # it answers from its window, and its evidence says so
            logger.warning("nothing could be recalled: %s", error)
            return
        if reader.moment is not None:
            frames = [moment.start for moment in recalled.moments]
            seen = [] if alone else stream.window.frame_times
            text = told(stream.model, reader.answer.question, reader.moment, [*frames, *seen])
            text = with_notes(reader.notes, text)
            reader.prompt = stream.model.question_segment(text, reader.answer.asked_at or 0.0)
    cost = replace(recalled.cost, probe=lookup.probed - lookup.begun, place=time.monotonic() - begun)
    in_view = () if alone and recalled.layers else lookup.in_view
    reader.answer.remember(replace(recalled, cost=cost), in_view)


def _alone(stream: StreamState, reader: Reader) -> bool:
    """Whether it is about a stretch, named by its caller or its own words, of which the recent window holds nothing."""
    assert reader.lookup is not None
    stretch, evidence = reader.lookup.between, reader.answer.evidence
    past = not (stream.config.keep_window or about_now(reader.answer.question))
    if stretch is None and reader.moment is not None and past:
        stretch = (reader.moment - NEAR, reader.moment + NEAR)
    return stretch is not None and not (evidence and evidence[-1][0] < stretch[1] and stretch[0] < evidence[-1][1])
