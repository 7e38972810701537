"""What a watcher is asked again and again: what just happened, whether a condition holds, what to note."""

from __future__ import annotations

from streamvlm.prompts import NARRATE, NO, NOTHING, YES, note_request, watch_probe
from streamvlm.world.questions import Question
from streamvlm.world.scene import COLORS, PLACES, SHAPES
from streamvlm.world.story import Event, Story
from streamvlm.world.view import View
from streamvlm.world.wording import PAST, look, statement

SECOND = 1.0  # what "the last second" means
NOTED = 5  # events that one note tells of at most
_FUZZY = 0.12  # seconds to either side of a border in which an event may be told or not


def ended(story: Story, since: float, now: float) -> list[Event]:
    """Events that were over in (since, now]."""
    return [e for e in story.between(max(0.0, since - 3), now + 0.01) if since < e.stop <= now]


def sharp(story: Story, border: float) -> bool:
    """Whether no event ends so near `border` that the frames cannot tell."""
    return not any(abs(e.stop - border) < _FUZZY for e in story.between(max(0.0, border - 3), border + 1))


def told(events: list[Event]) -> str:
    """Events as one line."""
    return "; ".join(statement(e) for e in events) or NOTHING


def narrate(view: View) -> Question | None:
    """What was over in the last second."""
    if view.now - view.since < SECOND or not (sharp(view.story, view.now) and sharp(view.story, view.now - SECOND)):
        return None
    return Question("narrate", NARRATE, told(ended(view.story, view.now - SECOND, view.now)))


def note(view: View, since: float, named: float) -> Question | None:
    """What was over since a moment, in one line; `named` is what the stream's clock called it (seconds)."""
    if not (sharp(view.story, view.now) and sharp(view.story, since)):
        return None
    events = ended(view.story, since, view.now)
    if len(events) > NOTED:
        return None
    return Question("note", note_request(named), told(events), (since, view.now))


def watch(view: View) -> Question | None:
    """Whether a condition holds now: something is so, or something has just happened."""
    asked = _just(view) if view.rng.random() < 0.5 else _state(view)
    if asked is None:
        return None
    condition, holds = asked
    return Question("watch", watch_probe(condition), YES if holds else NO)


def _just(view: View) -> tuple[str, bool] | None:
    if view.now - view.since < SECOND or not (sharp(view.story, view.now) and sharp(view.story, view.now - SECOND)):
        return None
    now = [statement(e) for e in ended(view.story, view.now - SECOND, view.now)]
    if now and view.rng.random() < 0.65:
        return just_now(view.rng.choice(now)), True
    seen = [statement(e) for e in view.events if statement(e) not in now]
    made_up = []
    for thing in view.things:
        name = f"the {look(thing)}"
        made_up += [
            f"{name} entered",
            f"{name} left",
            f"{name} blinked",
            f"{name} moved to the {view.rng.choice(list(PLACES))}",
        ]
    made_up += [
        f"the sign changed to {view.rng.randrange(100)}",
        "the camera shook",
        "the light dimmed",
        "the scene changed",
    ]
    source = seen if seen and view.rng.random() < 0.4 else [m for m in made_up if m not in now]
    return just_now(view.rng.choice(source)), False


def just_now(text: str) -> str:
    """ "the red star entered" as a condition: "the red star just entered"."""
    words = text.split(" ")
    verb = next(i for i, w in enumerate(words) if w in PAST)
    return " ".join([*words[:verb], "just", *words[verb:]])


def _state(view: View) -> tuple[str, bool] | None:
    scene = view.scene_at(view.now)
    if scene is None:
        return None
    holds = view.rng.random() < 0.5
    kind = view.rng.random()
    if kind < 0.3 and scene.sign:
        number = scene.sign.text if holds else str(view.rng.randrange(100))
        return (f"the sign shows {number}", holds) if holds or number != scene.sign.text else None
    if kind < 0.5 and scene.things:
        thing = view.rng.choice(list(scene.things))
        place = thing.cell if holds else view.rng.choice([i for i in range(len(PLACES)) if i != thing.cell])
        return f"the {look(thing)} is in the {PLACES[place]}", holds
    if kind < 0.6:
        return (
            ("the light is dim", scene.dim) if view.rng.random() < 0.5 else ("there is a sign", scene.sign is not None)
        )
    present = [look(t) for t in scene.things]
    absent = [
        f"{c} {s}"
        for c in COLORS
        for s in SHAPES
        if f"{c} {s}" not in present and (scene.find(c) or scene.find(None, s))
    ]
    absent = absent or [f"{c} {s}" for c in COLORS for s in SHAPES]
    if holds and not present:
        return None
    name = view.rng.choice(present if holds else absent)
    return f"there is {'an' if name.startswith('orange') else 'a'} {name}", holds
