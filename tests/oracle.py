"""A second reading of the event log: answers worked out from a question's words, without the generator's help."""

from __future__ import annotations

import re
from collections.abc import Callable

from streamvlm.world.scene import COLORS, PLACES, SHAPES, Scene, Thing
from streamvlm.world.story import Event, Story

NONE = "none"
NEXT = {"go": "slow", "slow": "stop", "stop": "wait", "wait": "go"}
GOING_ON = {"enter": "entering", "leave": "leaving", "move": "moving", "blink": "blinking", "hit": "hitting"}
THING = rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
# What somebody is asked to have done, and the kind of event that is.
DONE = {
    "enter": "enter", "entered": "enter", "leave": "leave", "left": "leave", "move": "move", "moved": "move",
    "blink": "blink", "blinked": "blink", "hit something": "hit", "change color": "recolor",
}  # fmt: skip


def named(text: str, words: tuple[str, ...]) -> list[str]:
    """Which of `words` a question names, plurals included."""
    tokens = [t.strip("?.,") for t in text.lower().replace("crosses", "cross").split()]
    return [w for w in words if w in tokens or f"{w}s" in tokens]


def of_scene(scene: Scene, text: str) -> str:
    """The answer to a question about one scene."""
    text = text.lower().rstrip("?.")
    color = next(iter(named(text, tuple(COLORS))), None)
    shape = next(iter(named(text, SHAPES)), None)
    found = [t for t in scene.things if color in (None, t.color) and shape in (None, t.shape)]
    if text.startswith(("how many", "count")):
        return str(len(found))
    if text.startswith(("is ", "was ", "do you", "did you", "can you", "could you")):
        return "yes" if (scene.sign is not None if "sign" in text else found) else "no"
    if "where" in text or "position" in text or "part of" in text:
        cells = [scene.sign.cell] if "sign" in text and scene.sign else [t.cell for t in found if "sign" not in text]
        assert len(cells) <= 1, f"ambiguous: {text}"
        return PLACES[cells[0]] if cells else NONE
    if "sign" in text:
        assert scene.sign or not ("next" in text or "will" in text)
        shown = scene.sign.text if scene.sign else NONE
        return NEXT[shown] if "next" in text or "will" in text else shown
    assert len(found) <= 1, f"ambiguous: {text}"
    if not found:
        return NONE
    return found[0].color if shape and not color else found[0].shape


def thing(scene: Scene, number: int | None) -> Thing | None:
    return next((t for t in scene.things if t.id == number), None)


def who(event: Event) -> tuple[str, str] | None:
    """Colour and shape of the one it happened to, before it did."""
    one = thing(event.before, event.thing) or thing(event.after, event.thing)
    return (one.color, one.shape) if one else None


def tell(event: Event) -> str:
    """What happened, in words."""
    old, new = event.before, event.after
    if event.kind == "sign":
        return f"the sign changed to {new.sign.text}" if new.sign else "the sign left"
    if event.kind in ("cut", "shake"):
        return "the scene changed" if event.kind == "cut" else "the camera shook"
    if event.kind == "light":
        return "the light dimmed" if new.dim else "the light returned"
    one, now, struck = who(event), thing(new, event.thing), thing(old, event.other)
    said = {"enter": "entered", "leave": "left", "blink": "blinked"}.get(event.kind)
    if event.kind == "move" and now:
        said = f"moved to the {PLACES[now.cell]}"
    if event.kind == "recolor" and now:
        said = f"turned {now.color}"
    if event.kind == "hit" and struck:
        said = f"hit the {struck.color} {struck.shape}"
    assert one and said
    return f"the {one[0]} {one[1]} {said}"


def over(story: Story, since: float, until: float) -> list[Event]:
    """The events that were over in (since, until]."""
    return [e for e in story.until(until + 1) if e.kind != "start" and since < e.stop <= until]


def seconds(clock: str) -> float:
    """ "1:00:05" as seconds."""
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return float(total)


def answer(story: Story, kind: str, text: str, now: float) -> str:
    """The answer to a question asked at `now`, from the whole log."""
    return _READINGS.get(kind, _of_now)(story, text, now)


def _of_now(story: Story, text: str, now: float) -> str:
    scene = story.scene_at(now)
    assert scene is not None, "the scene is changing"
    return of_scene(scene, text)


def _action(story: Story, text: str, now: float) -> str:
    asked = re.search(THING, text)
    event = story.event_at(now)
    assert asked and any((t.color, t.shape) == asked.groups() for t in (*event.before.things, *event.after.things))
    acts = event.start <= now < event.stop and who(event) == asked.groups()
    return GOING_ON[event.kind] if acts else "nothing"


def _step(story: Story, text: str, now: float) -> str:
    return "yes" if f" {_action(story, text, now)} " in text else "no"


def _episode(story: Story, text: str, now: float) -> str:
    asked = re.search(r"^(.*) at ([\d:]+)\?$", text)
    assert asked
    time = seconds(asked[2])
    assert time < now
    if asked[1] == "what happened":
        events = over(story, time - 1, time)
        assert len(events) == 1
        return tell(events[0])
    return _of_now(story, asked[1], time)


def _before(story: Story, text: str, now: float) -> str:
    events = over(story, 0, now)[::-1]  # the latest is meant
    if "sign" in text:
        word = text.rstrip("?").split()[-1]
        changes = [(e.before.sign.text, e.after.sign.text) for e in events if e.before.sign and e.after.sign]
        changes = [(old, new) for old, new in changes if old != new]
        if " before " in text:
            return next(old for old, new in changes if new == word)
        return next(new for old, new in changes if old == word)
    asked = re.search(rf"the {THING} before it moved", text)
    if asked:
        move = next(e for e in events if e.kind == "move" and who(e) == asked.groups())
        old = thing(move.before, move.thing)
        assert old
        return PLACES[old.cell]
    asked = re.search(r"the (\w+) before it turned (\w+)", text)
    assert asked
    turn = next(e for e in events if e.kind == "recolor" and f"{asked[1]} turned {asked[2]}" in tell(e))
    return (who(turn) or ("?",))[0]


def _order(story: Story, text: str, now: float) -> str:
    events = [e for e in over(story, now - 15, now) if e.start >= now - 15]
    told = [tell(e) for e in events]
    after = re.search(r"right after (.*)\?", text)
    if after:
        assert told.count(after[1]) == 1
        return told[told.index(after[1]) + 1]
    asked = re.search(r"first, (.*) or (.*)\?", text)
    assert asked and told.count(asked[1]) == told.count(asked[2]) == 1
    return min(asked.groups(), key=told.index)


def _recent(story: Story, now: float) -> list[Event]:
    return [e for e in over(story, now - 15, now) if e.start >= now - 15]


def _did(event: Event, subject: str, verb: str) -> bool:
    one = who(event)
    whole = {"sign": ("the sign", "change"), "light": ("the light", "change"), "cut": ("the scene", "change")}
    whole |= {"shake": ("the camera", "shake")}
    if event.kind in whole:
        return whole[event.kind] == (subject, verb)
    return one is not None and subject == f"the {one[0]} {one[1]}" and DONE.get(verb) == event.kind


_VERBS = "enter|leave|move|change color|blink|hit something|change|shake"


def _never(story: Story, text: str, now: float) -> str:
    events = _recent(story, now)
    asked = re.fullmatch(rf"did (.*?) ({_VERBS}) in the last 15 seconds\?", text)
    if asked:
        return "yes" if any(_did(e, asked[1], asked[2]) for e in events) else "no"
    asked = re.fullmatch(r"what color was the (\w+) that (\w+) in the last 15 seconds\?", text)
    assert asked
    doers = {w[0] for e in events if e.kind == DONE[asked[2]] and (w := who(e)) and w[1] == asked[1]}
    assert len(doers) <= 1, "ambiguous"
    return doers.pop() if doers else NONE


def _repetition(story: Story, text: str, now: float) -> str:
    events = _recent(story, now)
    asked = re.fullmatch(rf"how many times did (.*?) ({_VERBS}) in the last 15 seconds\?", text)
    if asked:
        return str(sum(_did(e, asked[1], asked[2]) for e in events))
    asked = re.fullmatch(r"how many things (\w+) in the last 15 seconds\?", text)
    assert asked
    return str(sum(e.kind == DONE[asked[1]] for e in events))


def _clue(story: Story, text: str, now: float) -> str:
    scene = story.event_at(now).after
    asked = re.search(r"sign shows after (\d+)", text)
    if asked:  # as long as the sign shows it, one cannot know
        return "no" if scene.sign and scene.sign.text == asked[1] else "yes"
    kind = next(k for words, k in {"moves": "move", "leaves": "leave", "hits": "hit", "turns": "recolor"}.items()
                if f" {words}?" in text)  # fmt: skip
    asked = re.search(THING, text)
    assert asked
    here = any((t.color, t.shape) == asked.groups() for t in scene.things)
    for event in over(story, 0, now)[::-1]:
        if event.kind == kind and who(event) == asked.groups():
            return "yes"
        if here and asked.groups() not in [(t.color, t.shape) for t in event.before.things]:
            return "no"  # it has only come
    return "no"


_READINGS: dict[str, Callable[[Story, str, float], str]] = {
    "action": _action, "step": _step, "episode": _episode, "before": _before, "order": _order, "never": _never,
    "repetition": _repetition, "clue": _clue,
}  # fmt: skip
