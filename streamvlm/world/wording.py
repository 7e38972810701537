"""How events are put into words: as statements, as questions, and as things going on."""

from __future__ import annotations

from streamvlm.world.scene import PLACES, Scene, Thing
from streamvlm.world.story import Event

DOING = {"enter": "entering", "leave": "leaving", "move": "moving", "blink": "blinking", "hit": "hitting"}
# The verbs of statements.
PAST = frozenset(
    {"entered", "left", "moved", "turned", "blinked", "hit", "changed", "dimmed", "returned", "shook"}
)  # verbs of statements
STILL = "nothing"  # what a thing at rest is doing


def look(thing: Thing) -> str:
    """What a thing is called."""
    return f"{thing.color} {thing.shape}"


def with_article(noun: str) -> str:
    """ "an orange star"; of all that is named, only that begins with a vowel."""
    return f"an {noun}" if noun.startswith("orange") else f"a {noun}"


def find(scene: Scene, number: int | None) -> Thing | None:
    """The thing with that id, if it is in the scene."""
    return next((thing for thing in scene.things if thing.id == number), None)


def actor(event: Event) -> Thing:
    """The thing an event happened to, as it was before; as it came, if it was not there."""
    thing = find(event.before, event.thing) or find(event.after, event.thing)
    assert thing is not None, f"{event.kind} happens to nobody"
    return thing


def statement(event: Event) -> str:
    """What happened, as one clause: "the red star entered"."""
    after, before = event.after, event.before
    if event.kind == "sign":
        return f"the sign changed to {after.sign.text}" if after.sign else "the sign left"
    if event.kind in _OF_THE_SCENE:
        return _OF_THE_SCENE[event.kind][before.dim]
    name = look(actor(event))
    return f"the {name} {_done(event)}"


_OF_THE_SCENE = {
    "light": ("the light dimmed", "the light returned"),
    "shake": ("the camera shook", "the camera shook"),
    "cut": ("the scene changed", "the scene changed"),
}


def _done(event: Event) -> str:
    new = find(event.after, event.thing)
    if event.kind == "move":
        assert new is not None
        return f"moved to the {PLACES[new.cell]}"
    if event.kind == "recolor":
        assert new is not None
        return f"turned {new.color}"
    if event.kind == "hit":
        other = find(event.before, event.other)
        assert other is not None
        return f"hit the {look(other)}"
    return {"enter": "entered", "leave": "left", "blink": "blinked"}[event.kind]


def deed(event: Event) -> tuple[str, str]:
    """Who did what, as a question needs it: ("the red star", "blink"); where to or which colour is left out."""
    if event.kind in ("sign", "light", "cut"):
        return {"sign": "the sign", "light": "the light", "cut": "the scene"}[event.kind], "change"
    if event.kind == "shake":
        return "the camera", "shake"
    return f"the {look(actor(event))}", VERBS[event.kind]


VERBS = {
    "enter": "enter",
    "leave": "leave",
    "move": "move",
    "recolor": "change color",
    "blink": "blink",
    "hit": "hit something",
}


def clock(seconds: float) -> str:
    """Stream time as people write it: "0:12", "1:00:05"."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes
