"""Questions whose answer grows with the stream: how often, whether it is going on, whether it can be known yet."""

from __future__ import annotations

from collections import Counter

from streamvlm.world.backward import LAST
from streamvlm.world.questions import Question
from streamvlm.world.story import Event
from streamvlm.world.view import View, around
from streamvlm.world.wording import DOING, STILL, VERBS, actor, deed, look

_MOST = 5  # repetitions; more are not asked about
_LIFE = 900.0  # seconds; a thing that has been there for longer is not asked about
_TELLING = 0.2  # share of an event's length after which a picture shows it


def repetition(view: View) -> Question | None:
    """How often something has happened."""
    counted: Counter[str] = Counter()
    unsure = {text for event in view.unsure for text in _countable(event)}
    for event in view.events:
        counted.update(_countable(event))
    for thing in view.things:
        for verb in ("blink", "hit something", "move"):
            counted[f"times did the {look(thing)} {verb}"] += 0
    for text in ("times did the sign change", "things entered", "things left"):
        counted[text] += 0
    numbers: dict[int, list[str]] = {}
    for text, number in counted.items():
        if text not in unsure and number <= _MOST:
            numbers.setdefault(number, []).append(text)
    if not numbers:
        return None
    number = view.rng.choice(sorted(numbers))  # first the answer, or nearly all would be 0 or 1
    text = view.rng.choice(numbers[number])
    about = [e for e in view.events if text in _countable(e)]
    others = tuple(str(n) for n in (number + 1, max(0, number - 1), number + 2) if n != number)
    return Question(
        "repetition",
        f"how many {text} {LAST}?",
        str(number),
        around(*about) if about else (view.start, view.now),
        others,
    )


def _countable(event: Event) -> list[str]:
    """What an event is one more of."""
    who, verb = deed(event)
    texts = [f"times did {who} {verb}"] if event.kind in ("blink", "hit", "move", "sign") else []
    return texts + {"enter": ["things entered"], "leave": ["things left"]}.get(event.kind, [])


def current(view: View) -> Event | None:
    """The event that is going on and to be seen."""
    event = view.story.event_at(view.now)
    if event.kind not in DOING or view.now >= event.stop:
        return None
    shown = event.kind == "blink" or (view.now - event.start) / (event.stop - event.start) > _TELLING
    return event if shown else None


def resting(view: View) -> bool:
    """Whether nothing is going on, nor was a moment ago."""
    event = view.story.event_at(view.now)
    return view.now >= event.stop + 0.5


def action(view: View) -> Question | None:
    """What a thing is doing right now."""
    event = current(view)
    if event is None and not resting(view):
        return None
    doer = actor(event) if event else None
    idle = [t for t in view.things if doer is None or t.id != doer.id]
    if event and (view.rng.random() < 0.8 or not idle):
        assert doer is not None
        thing, answer = doer, DOING[event.kind]
    elif idle:
        thing, answer = view.rng.choice(idle), STILL
    else:
        return None
    others = tuple(view.rng.sample([d for d in (*DOING.values(), STILL) if d != answer], 3))
    text = view.rng.choice([f"what is the {look(thing)} doing?", f"what is the {look(thing)} doing right now?"])
    return Question("action", text, answer, None, others)


def step(view: View) -> Question | None:
    """Whether something is going on right now."""
    event = current(view)
    if event is None and not resting(view):
        return None
    if event and view.rng.random() < 0.6:
        return Question("step", f"is the {look(actor(event))} {DOING[event.kind]} right now?", "yes")
    things = [t for t in view.things if event is None or t.id != actor(event).id]
    asked = [f"the {look(t)} {doing}" for t in things for doing in DOING.values()]
    if event:
        asked += 3 * [f"the {look(actor(event))} {d}" for k, d in DOING.items() if k != event.kind]
    return Question("step", f"is {view.rng.choice(asked)} right now?", "no") if asked else None


def clue(view: View) -> Question | None:
    """Whether a question can be answered yet."""
    yes = view.rng.random() < 0.5
    options = _told(view) if yes else _untold(view)
    if not options:
        return None
    text, needs = view.rng.choice(options)
    return Question("clue", f"can you tell yet {text}?", "yes" if yes else "no", needs)


# What is waited for, by the kind of event that will tell.
_WAITED = {"move": "where the {} moves", "leave": "whether the {} leaves", "hit": "what the {} hits"}
_TURNS = "what color the {} turns"


def _told(view: View) -> list[tuple[str, tuple[float, float]]]:
    found = []
    for event in view.settled:
        old = event.before.sign
        if event.kind == "sign" and old and event.after.sign and old.following is None:
            found.append((f"what the sign shows after {old.text}", around(event)))
        if event.kind in _WAITED:
            found.append((_WAITED[event.kind].format(look(actor(event))), around(event)))
        if event.kind == "recolor":
            found.append((_TURNS.format(look(actor(event))), around(event)))
    return found


def _untold(view: View) -> list[tuple[str, tuple[float, float]]]:
    scene, span = view.story.event_at(view.now).after, (view.start, view.now)
    done = {deed(e) for e in (*view.events, *view.unsure)}
    found = []
    shown = [e.before.sign.text for e in (*view.events, *view.unsure) if e.kind == "sign" and e.before.sign]
    if scene.sign and scene.sign.following is None and scene.sign.text not in shown:
        found.append((f"what the sign shows after {scene.sign.text}", span))
    for thing in scene.things:
        for kind, text in (*_WAITED.items(), ("recolor", _TURNS)):
            if (f"the {look(thing)}", VERBS[kind]) not in done:
                found.append((text.format(look(thing)), span))
    return found


def is_latest(view: View, question: Question) -> bool:
    """Whether the answer to a `clue` is true of the latest that its words fit, in the whole story.

    What the last 15 seconds say need not be: a thing may have done long ago what is said to be open, and another that
    looks like it may have come since.
    """
    scene = view.story.event_at(view.now).after
    text, yes = question.text.rstrip("?"), question.answer == "yes"
    if scene.sign and text.endswith(f"after {scene.sign.text}"):
        return not yes
    named = next((look(t) for t in scene.things if f"the {look(t)} " in f"{text} "), None)
    return named is None or yes == _touched(view, named, text)


def _touched(view: View, named: str, text: str) -> bool:
    """Whether a thing in sight has done what is waited for since it came to look as it does."""
    waited = {**_WAITED, "recolor": _TURNS}
    deeds = {(f"the {named}", VERBS[kind]) for kind, words in waited.items() if words.format(named) in text}
    for event in reversed(view.story.between(max(0.0, view.now - _LIFE), view.now)):
        if deed(event) in deeds:
            return True
        if named not in map(look, event.before.things):
            return False
    return view.now > _LIFE
