"""What a question must be like to be asked."""

from __future__ import annotations

import math

from streamvlm import prompts
from streamvlm.engine.narration import LIMIT
from streamvlm.engine.questions import Terms
from streamvlm.engine.stream import StreamState
from streamvlm.engine.watches import Watch


def check_text(state: StreamState, question: str, room: int, setting: str = "max_question_tokens") -> None:
    """Raise ValueError if a question is empty or takes more than `room` tokens."""
    if not question.strip():
        raise ValueError("the question is empty")
    length = len(state.model.question_layout(question))
    if length > room:
        raise ValueError(f"the question takes {length} tokens; {setting} allows {room}")


def check_watch(state: StreamState, watch: Watch) -> None:
    """Raise ValueError if there is no condition, no room to ask about it, or a rule that its trigger cannot follow."""
    trigger, room = watch.trigger, state.config.background_tokens
    if trigger.reads == "line":
        check_text(state, watch.condition, room, "background_tokens")
        check_text(state, prompts.NARRATE, room - LIMIT, "background_tokens, less a line,")
        if watch.rule.for_at_least:
            raise ValueError(
                f"for_at_least={watch.rule.for_at_least}: what is narrated is over at once; give a trigger that keeps "
                "looking, such as Probe()"
            )
    else:
        check_text(state, trigger.text(watch.condition), room - trigger.room(state.model), "background_tokens")


def check_moment(state: StreamState, at: float | None, asked_until: float) -> None:
    """Raise ValueError if `at` is no moment that is still to come; the stream is to play on to `asked_until`."""
    if at is None:
        return
    if not (math.isfinite(at) and at >= 0):
        raise ValueError(f"at={at} is not a moment of the stream; it must be 0 or more seconds")
    # Whatever was asked for before the first block is answered as of that block, so it cannot be too late.
    past = state.now if state.now > state.first else 0.0
    if state.ended and at < past:
        raise ValueError(f"at={at} is past: the stream ended at {past:.2f} s")
    if not state.ended and not state.paced and math.isfinite(asked_until):
        past = max(past, asked_until)
    if at < past:
        raise ValueError(f"at={at} is past: the stream is at, or playing to, {past:.2f} s; ask in order of time")


def check_terms(state: StreamState, memory: bool | None, notes: bool | None, noted: bool | None) -> Terms:
    """What a question may use; None: whatever its stream keeps.

    Raises:
        ValueError: one is neither None nor a truth value, or wants what the stream does not keep.
    """
    keeps, jots = state.memory is not None, state.mind.taker is not None
    asked = (("memory", memory, keeps, "store=FOLDER"), ("notes", notes, jots, "notes=True"),
             ("noted", noted, jots, "notes=True"))  # fmt: skip
    for name, wanted, there, setting in asked:
        if wanted not in (None, True, False):
            raise ValueError(f"{name} must be True, False, or None for whatever the stream keeps, got {wanted!r}")
        if wanted and not there:
            raise ValueError(f"{name}=True needs what this stream does not keep: watch it with {setting}")
    return Terms(memory is not False, notes is not False, noted is not False)


def check_between(state: StreamState, between: tuple[float, float] | None, memory: bool | None = None) -> None:
    """Raise ValueError if `between` is no stretch of time, or there is nothing stored to look for it in."""
    if between is None:
        return
    if memory is False:
        raise ValueError(f"between={between} looks into the store, and memory=False forbids it; leave one of them out")
    if state.memory is None:
        raise ValueError(f"between={between} looks into a store, and this stream has none")
    if not (0 <= between[0] < between[1] < math.inf):
        raise ValueError(f"between={between} must be (start, stop) seconds with 0 <= start < stop")
