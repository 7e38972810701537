"""Questions about what has happened: episodes, their order, and what never was."""

from __future__ import annotations

from itertools import pairwise

from streamvlm.world.questions import NONE, Question
from streamvlm.world.scene import COLORS, PLACES, SHAPES
from streamvlm.world.story import Event
from streamvlm.world.view import View, around
from streamvlm.world.wording import VERBS, actor, deed, find, look, statement

LAST = "in the last 15 seconds"


def before(view: View) -> Question | None:
    """How something was until it changed, or what the sign showed next to a text."""
    makers = [_sign_before, _sign_before, _place_before, _color_before]
    view.rng.shuffle(makers)
    return next((question for question in (maker(view) for maker in makers) if question), None)


def _sign_before(view: View) -> Question | None:
    changes = [e for e in view.settled if e.kind == "sign" and e.before.sign and e.after.sign]
    shown = [s.text for e in (*view.events, *view.unsure) if e.kind in ("sign", "cut") for s in (e.after.sign,) if s]
    found = []
    for event in changes:
        old, new = event.before.sign, event.after.sign
        assert old is not None and new is not None
        if old.following is None and shown.count(new.text) == 1:
            found.append((f"what did the sign show before {new.text}?", old.text, event))
        if old.following is None and shown.count(old.text) <= 1:
            found.append((f"what did the sign show after {old.text}?", new.text, event))
    if not found:
        return None
    text, answer, event = view.rng.choice(found)
    return Question("before", text, answer, around(event), _near_texts(view, answer, shown))


def _near_texts(view: View, answer: str, shown: list[str]) -> tuple[str, ...]:
    others = [t for t in dict.fromkeys(shown) if t != answer]
    near = [str((int(answer) + d) % 100) for d in (1, 10, 90, 99)] if answer.isdecimal() else []
    view.rng.shuffle(near)
    return tuple(dict.fromkeys([*others, *near]))[:3]


def _place_before(view: View) -> Question | None:
    moves = [e for e in view.settled if e.kind == "move"]
    deeds = [deed(e) for e in (*view.events, *(u for u in view.unsure if u not in view.events))]
    once = [e for e in moves if deeds.count(deed(e)) == 1]
    if not once:
        return None
    event = view.rng.choice(once)
    thing = actor(event)
    now = find(event.after, thing.id)
    assert now is not None
    others = [
        PLACES[now.cell],
        *view.rng.sample([p for p in PLACES if p not in (PLACES[thing.cell], PLACES[now.cell])], 2),
    ]
    return Question(
        "before", f"where was the {look(thing)} before it moved?", PLACES[thing.cell], around(event), tuple(others)
    )


def _color_before(view: View) -> Question | None:
    said = [_turn(e) for e in (*view.events, *view.unsure) if e.kind == "recolor"]
    turns = [e for e in view.settled if e.kind == "recolor" and said.count(_turn(e)) == 1]
    if not turns:
        return None
    event = view.rng.choice(turns)
    old, (shape, new) = actor(event).color, _turn(event)
    others = [new, *view.rng.sample([c for c in COLORS if c not in (old, new)], 2)]
    text = f"what color was the {shape} before it turned {new}?"
    return Question("before", text, old, around(event), tuple(others))


def _turn(event: Event) -> tuple[str, str]:
    """Which shape took which colour."""
    new = find(event.after, event.thing)
    assert new is not None
    return new.shape, new.color


def order(view: View) -> Question | None:
    """Which of two events came first, or what came next."""
    events = view.unique(view.settled)
    if len(events) < 2:
        return None
    if view.rng.random() < 0.35:
        return _following(view)
    first, second = sorted(view.rng.sample(events, 2), key=lambda e: e.start)
    told = [statement(first), statement(second)]
    view.rng.shuffle(told)
    text = f"what happened first, {told[0]} or {told[1]}?"
    return Question("order", text, statement(first), around(first, second), (statement(second),))


def _following(view: View) -> Question | None:
    events, unique = view.events, view.unique(view.settled)
    pairs = [(a, b) for a, b in pairwise(events) if a in unique and b in view.settled]
    if not pairs:
        return None
    first, second = view.rng.choice(pairs)
    others = tuple(
        dict.fromkeys(statement(e) for e in events if statement(e) not in (statement(first), statement(second)))
    )
    return Question(
        "order", f"what happened right after {statement(first)}?", statement(second), around(first, second), others[:3]
    )


def never(view: View) -> Question | None:
    """Whether something happened at all; half of the time it did not."""
    if view.rng.random() < 0.3:
        return _nobody(view)
    yes = view.rng.random() < 0.5
    done = {deed(e): e for e in view.settled}
    options = [d for d in done if view.clear(d)] if yes else _near_misses(view)
    if not options:
        return None
    who, verb = view.rng.choice(options)
    needs = around(done[who, verb]) if yes else (view.start, view.now)
    return Question("never", f"did {who} {verb} {LAST}?", "yes" if yes else "no", needs)


def _near_misses(view: View) -> list[tuple[str, str]]:
    """Deeds that nobody did, of things that were seen or like things that were seen doing them."""
    done = dict.fromkeys(deed(e) for e in (*view.events, *view.unsure))
    seen = [f"the {look(t)}" for e in view.events for t in (*e.before.things, *e.after.things)]
    verbs = view.rng.sample(list(VERBS.values()), 3)
    missed = [(who, verb) for who in dict.fromkeys(seen) for verb in verbs]
    missed += [
        (f"the {view.rng.choice(list(COLORS))} {view.rng.choice(list(SHAPES))}", verb)
        for _, verb in done
        if verb in VERBS.values()
    ]
    missed += [("the sign", "change"), ("the light", "change"), ("the camera", "shake"), ("the scene", "change")]
    return [d for d in missed if d not in done]


def _nobody(view: View) -> Question | None:
    """The colour of the one that did it, or of nobody."""
    kind, verb = view.rng.choice([("leave", "left"), ("enter", "entered"), ("blink", "blinked"), ("move", "moved")])
    doers = [e for e in (*view.events, *view.unsure) if e.kind == kind]
    shapes = {shape: {actor(e).id: e for e in doers if actor(e).shape == shape} for shape in SHAPES}
    if view.rng.random() < 0.5:
        shape = view.rng.choice([s for s in SHAPES if not shapes[s]])
        return Question("never", f"what color was the {shape} that {verb} {LAST}?", NONE, (view.start, view.now))
    known = set(map(id, view.settled))
    one = [s for s in SHAPES if len(shapes[s]) == 1 and all(id(e) in known for e in doers if actor(e).shape == s)]
    if not one:
        return None
    shape = view.rng.choice(one)
    event = next(iter(shapes[shape].values()))
    others = tuple(view.rng.sample([c for c in COLORS if c != actor(event).color], 3))
    return Question(
        "never", f"what color was the {shape} that {verb} {LAST}?", actor(event).color, around(event), others
    )
