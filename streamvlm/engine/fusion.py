"""Fusion: what keys remember and what notes say, as one list of moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamvlm.engine.evidence import Moment
from streamvlm.memory.notes import Note

FLATNESS = 60  # of reciprocal rank fusion (Cormack et al., SIGIR 2009): how little the first ranks stand out


def fuse(moments: Sequence[Moment], notes: Sequence[Note]) -> tuple[Moment, ...]:
    """Moments and the stretches that notes are about, in time order, with scores by reciprocal rank: those of two
    methods cannot be compared, their ranks can. A moment that a note speaks of counts by both."""
    found = dict(zip(moments, _by_rank([m.score for m in moments]), strict=True))
    for note, score in zip(notes, _by_rank([n.score for n in notes]), strict=True):
        meant = [m for m in found if m.start <= note.stop and note.start < m.stop]
        for moment in meant:
            found[moment] += score
        if not meant:
            found[Moment(note.start, note.stop, 0.0)] = score
    return tuple(sorted((replace(m, score=score) for m, score in found.items()), key=lambda m: (m.start, m.stop)))


def _by_rank(scores: Sequence[float]) -> list[float]:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    ranks = {index: rank for rank, index in enumerate(order)}
    return [1 / (FLATNESS + ranks[i]) for i in range(len(scores))]
