"""Conditions that somebody may wait for: what is so ("the sign shows 42") and what has just happened."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from streamvlm.world.scene import COLORS, HELD_OUT, PLACES, SHAPES, WORDS, Scene
from streamvlm.world.story import Event, Story
from streamvlm.world.wording import PAST, look, statement, with_article

SECOND = 1.0  # for how long something has just happened
FUZZY = 0.12  # seconds to either side of a border in which an event may be told or not
_NEAR = 20.0  # seconds before and after, in which other things hold and happen
_LOOK = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")
_PLACE = re.compile(rf"(?<=the )(?:{'|'.join(sorted(PLACES, key=len, reverse=True))})$")
_TEXT = re.compile(r"(?<=shows )\w+$|(?<=changed to )\w+$")  # of the sign
_COLOR = re.compile(r"(?<=turned )\w+$")
_DEED = re.compile(r"(?<!sign )(?<!the )(?<!top )(?<!bottom )(?:entered|left|blinked)$")  # of a thing; no place
_OF_THE_SCENE = ("there is a sign", "the light is dim")
_SELDOM = 0.3  # how often these are asked about, to the other sorts' 1


def facts(scene: Scene) -> list[str]:
    """Every condition that is so in a scene."""
    found = [there_is(look(t)) for t in scene.things] + [in_place(look(t), t.cell) for t in scene.things]
    if scene.sign:
        found += [f"the sign shows {scene.sign.text}", "there is a sign"]
    return [*found, "the light is dim"] if scene.dim else found


def there_is(name: str) -> str:
    """That a thing of this look is in sight."""
    return f"there is {with_article(name)}"


def in_place(name: str, cell: int) -> str:
    """Where the thing of this look is."""
    return f"the {name} is in the {PLACES[cell]}"


def just_now(text: str) -> str:
    """ "the red star entered" as a condition: "the red star just entered"."""
    words = text.split(" ")
    verb = next(i for i, w in enumerate(words) if w in PAST)
    return " ".join([*words[:verb], "just", *words[verb:]])


def ended(story: Story, since: float, now: float) -> list[Event]:
    """Events that were over in (since, now]."""
    return [e for e in story.between(max(0.0, since - 3), now + 0.01) if since < e.stop <= now]


def seen_over(story: Story, since: float, now: float) -> list[Event]:
    """Events that were over in the last second, with those that took a while and ended so near its borders that the
    frames, of which the first was at `since`, cannot tell.
    """
    near = ended(story, max(since, now - SECOND - FUZZY), now + FUZZY)
    return [e for e in near if now - SECOND < e.stop <= now or e.start < min(now, e.stop)]


def sharp(story: Story, border: float) -> bool:
    """Whether no event ends so near `border` that the frames cannot tell."""
    return not any(abs(e.stop - border) < FUZZY for e in story.between(max(0.0, border - 3), border + 1))


def fact(story: Story, now: float, rng: random.Random) -> tuple[str, bool] | None:
    """What may be so now, and whether it is. While a scene changes, nothing that is about to change is asked about."""
    event = story.event_at(now)
    scenes = (event.after,) if now >= event.stop else (event.before, event.after)
    so = set.intersection(*(set(facts(scene)) for scene in scenes))
    open_ = set.union(*(set(facts(scene)) for scene in scenes)) - so
    if so and rng.random() < 0.5:
        return _of_a_sort(sorted(so), rng), True
    near = story.between(max(0.0, now - _NEAR), now + _NEAR)
    others = sorted({one for other in near for one in facts(other.after)})
    text = _untrue(sorted(so), others, lambda: _fact_of_nowhere(story, rng), so | open_, story, rng)
    return None if text is None else (text, False)


def moment(story: Story, since: float, now: float, rng: random.Random) -> tuple[str, bool] | None:
    """What may just have happened, and whether it has; `since` is when watching began (seconds)."""
    if now - since < SECOND:
        return None
    near = story.between(max(0.0, now - _NEAR), now + _NEAR)
    borders = (now - SECOND, now)
    unsure = {statement(e) for e in near if any(abs(e.stop - b) < FUZZY for b in borders) or e.start <= now < e.stop}
    true = [t for e in ended(story, now - SECOND, now) if (t := statement(e)) not in unsure]
    if true and rng.random() < 0.6:
        return just_now(rng.choice(true)), True
    # What is going on, or may go on, misleads as well as what has just happened.
    lately = [statement(e) for e in near if now - 3 < e.stop and e.start < now + 1]
    said = [statement(e) for e in near]
    text = _untrue(lately, said, lambda: _deed_of_nowhere(story, rng), {*true, *unsure}, story, rng)
    return None if text is None else (just_now(text), False)


def _untrue(
    mistaken: Sequence[str], others: Sequence[str], invent: Callable[[], str], true: set[str],
    story: Story, rng: random.Random,
) -> str | None:  # fmt: skip
    """One of: what differs from something `mistaken` for it in a word, what holds at other times, an invention.

    A look that the story never shows is not named: a model would learn that it is never there.
    """
    looks = {f"{c} {s}" for c, s in _looks(story)}
    for _ in range(8):
        sort = rng.random()
        if sort < 0.4 and mistaken:
            text = altered(_of_a_sort(mistaken, rng), rng)
        else:
            text = _of_a_sort(others, rng) if sort < 0.75 and others else invent()
        if text not in true and all(m[0] in looks for m in _LOOK.finditer(text)):
            return text
    return None


def altered(text: str, rng: random.Random) -> str:
    """A condition or statement with one word of it changed: another look, place, number, colour or deed."""
    spots = [(p, m) for p in (_LOOK, _PLACE, _TEXT, _COLOR, _DEED) for m in p.finditer(text)]
    if not spots:
        return text
    pattern, match = rng.choice(spots)
    new = _another(pattern, match, rng)
    changed = text[: match.start()] + new + text[match.end() :]
    return there_is(new) if changed.startswith("there is ") else changed


def _another(pattern: re.Pattern[str], match: re.Match[str], rng: random.Random) -> str:
    if pattern is _LOOK:
        color, shape = match.groups()
        return f"{rng.choice([*COLORS])} {shape}" if rng.random() < 0.5 else f"{color} {rng.choice(SHAPES)}"
    if pattern is _TEXT and match[0].isdecimal():
        digits = list(match[0])
        digits[rng.randrange(len(digits))] = str(rng.randrange(10))
        return str(int("".join(digits)))
    deeds = ("entered", "left", "blinked")
    return rng.choice({_PLACE: PLACES, _TEXT: WORDS, _COLOR: [*COLORS], _DEED: deeds}[pattern])


def _fact_of_nowhere(story: Story, rng: random.Random) -> str:
    name = _some_look(story, rng)
    return rng.choice(
        (
            there_is(name),
            in_place(name, rng.randrange(len(PLACES))),
            f"the sign shows {rng.randrange(100)}",
            rng.choice(_OF_THE_SCENE),
        )
    )


def _deed_of_nowhere(story: Story, rng: random.Random) -> str:
    some, other = _some_look(story, rng), _some_look(story, rng)
    deeds = ("entered", "left", "blinked", f"moved to the {rng.choice(PLACES)}", f"turned {rng.choice([*COLORS])}")
    if rng.random() < 0.75:
        return f"the {some} {rng.choice((*deeds, f'hit the {other}'))}"
    return rng.choice(
        (
            f"the sign changed to {rng.randrange(100)}",
            *("the sign left", "the camera shook", "the light dimmed", "the light returned", "the scene changed"),
        )
    )


def _looks(story: Story) -> list[tuple[str, str]]:
    """Colours and shapes that the story may show together."""
    return [(c, s) for c in COLORS for s in SHAPES if story.looks != "seen" or (c, s) not in HELD_OUT]


def _some_look(story: Story, rng: random.Random) -> str:
    return " ".join(rng.choice(_looks(story)))


def _of_a_sort(texts: Sequence[str], rng: random.Random) -> str:
    """One of them, every sort as often as the others, however many there are of it."""
    sorts: dict[str, list[str]] = {}
    for text in texts:
        sorts.setdefault(_sort(text), []).append(text)
    return rng.choice(sorts[rng.choices([*sorts], [_SELDOM if sort == "" else 1.0 for sort in sorts])[0]])


def _sort(text: str) -> str:
    """What a condition or statement is about, without its names."""
    if text in _OF_THE_SCENE:
        return ""
    for pattern in (_LOOK, _PLACE, _TEXT, _COLOR):
        text = pattern.sub("X", text)
    return text.replace(" an ", " a ")
