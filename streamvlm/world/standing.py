"""What a watcher is asked again and again: what just happened, whether a condition holds, what to note."""

from __future__ import annotations

from streamvlm.prompts import NARRATE, NO, NOTHING, YES, note_request, watch_probe
from streamvlm.world import conditions
from streamvlm.world.conditions import SECOND, ended, seen_over, sharp
from streamvlm.world.questions import Question
from streamvlm.world.story import Event
from streamvlm.world.view import View
from streamvlm.world.wording import statement

NOTED = 5  # events that one note tells of at most


def told(events: list[Event]) -> str:
    """Events as one line."""
    return "; ".join(statement(e) for e in events) or NOTHING


def narrate(view: View) -> Question | None:
    """What was over in the last second. What ends so near its border that the frames cannot tell is told in both
    seconds, so that neither leaves it to the other; who listens hears it once.
    """
    if view.now - view.since < SECOND:
        return None
    return Question("narrate", NARRATE, told(seen_over(view.story, view.since, view.now)))


def note(view: View, since: float, named: float) -> Question | None:
    """What was over since a moment, in one line; `named` is what the stream's clock called it (seconds)."""
    if not (sharp(view.story, view.now) and sharp(view.story, since)):
        return None
    events = ended(view.story, since, view.now)
    if len(events) > NOTED:
        return None
    return Question("note", note_request(named), told(events), (since, view.now))


def watch(view: View) -> Question | None:
    """Whether a condition holds now: something is so, or something has just happened.

    Most of what does not hold is a near miss, and any moment is asked about, as a watcher would: also while something
    changes, of which the onlooker cannot yet say.
    """
    if view.rng.random() < 0.5:
        return _probe(conditions.moment(view.story, view.since, view.now, view.rng))
    return state(view)


def state(view: View) -> Question | None:
    """Whether something is so now."""
    return _probe(conditions.fact(view.story, view.now, view.rng))


def _probe(asked: tuple[str, bool] | None) -> Question | None:
    if asked is None:
        return None
    condition, holds = asked
    return Question("watch", watch_probe(condition), YES if holds else NO)
