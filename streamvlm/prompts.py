"""The fixed words with which the engine asks a model on its own behalf; `tiny` is trained on exactly these."""

from __future__ import annotations

from collections.abc import Iterable

NARRATE = "What happened in the last second?"
NOTHING = "nothing"  # what a model answers to NARRATE and NOTE when it has nothing to say
YES, NO = "yes", "no"


def watch_probe(condition: str) -> str:
    """Asks whether a watched condition ("the sign shows 42") holds now; the answer is YES or NO."""
    return f"Is this true now: {condition.strip().rstrip('.?!')}? Answer yes or no."


def note_request(start: float) -> str:
    """Asks for one line about what happened since `start` (seconds of stream time)."""
    return f"Note what happened since <{start:.1f} seconds>."


def at_moment(start: float, question: str) -> str:
    """A question about an earlier moment, `start` being the time of a frame that was seen (seconds).

    However the moment was named, the model finds it by the words that stand before that frame.
    """
    return f"<{start:.1f} seconds> {question}"


def with_notes(notes: Iterable[tuple[float, str]], question: str) -> str:
    """A question with what was noted earlier, (seconds, text) each, oldest first, written before it."""
    lines = [f"<{time:.1f} seconds> {text}" for time, text in notes]
    return "\n".join(["Notes:", *lines, question]) if lines else question
