"""What a watcher is asked again and again, and the words that questions are made of."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

import pytest
from oracle import over, tell

from streamvlm.prompts import NARRATE, NOTHING
from streamvlm.train.vocabulary import build_tokenizer
from streamvlm.world.conditions import altered, fact, facts
from streamvlm.world.exam import exam
from streamvlm.world.kinds import KINDS, make
from streamvlm.world.questions import Question, phrases
from streamvlm.world.scene import HELD_OUT, PLACES, Scene
from streamvlm.world.standing import note
from streamvlm.world.story import Story
from streamvlm.world.truths import narration, watches_for
from streamvlm.world.view import View

OVO = {"EPM", "ASI", "HLD", "STU", "OJR", "ATR", "ACR", "OCR", "FPD", "REC", "SSR", "CRR"}


def _asked(kind: str) -> Iterator[tuple[Story, float, Question]]:
    rng = random.Random(kind)
    for seed in range(40):
        story = Story(7000 + seed)
        for _ in range(25):
            now = rng.randrange(40, 240) / 2
            question = make(kind, View(story, max(0.0, now - 15.5), now, rng))
            if question:
                yield story, now, question


def test_the_twelve_tasks_of_ovo_bench_are_all_there() -> None:
    assert {kind.code for kind in KINDS.values()} == {*OVO, "PO"}
    with pytest.raises(ValueError, match="unknown kind of question 'weather'"):
        make("weather", View(Story(0), 0.0, 5.0, random.Random(0)))


def test_narration_says_what_was_over_in_the_last_second() -> None:
    said: Counter[str] = Counter()
    for story, now, question in _asked("narrate"):
        # What took a while and ended so near a border that the frames cannot place it is told in both seconds.
        near = over(story, now - 1.12, now + 0.12)
        events = [e for e in near if now - 1 < e.stop <= now or (e.stop > e.start and e.start < now)]
        assert question.text == NARRATE
        assert question.answer == ("; ".join(map(tell, events)) or NOTHING)
        said[question.answer] += 1
    assert 0.2 < 1 - said[NOTHING] / said.total() < 0.6


def test_a_note_says_what_was_over_since_a_moment() -> None:
    told = 0
    for seed in range(30):
        story = Story(seed)
        question = note(View(story, 10.0, 25.0, random.Random(0)), since=12.0, named=512.0)
        if question:
            assert question.text == "Note what happened since <512.0 seconds>."
            assert question.answer == ("; ".join(map(tell, over(story, 12, 25))) or NOTHING)
            told += question.answer != NOTHING
    assert told > 10


def test_a_watched_condition_holds_when_the_answer_says_so() -> None:
    said: Counter[tuple[str, str]] = Counter()
    changing = 0
    for story, now, question in _asked("watch"):
        asked = re.fullmatch(r"Is this true now: (.*)\? Answer yes or no\.", question.text)
        assert asked
        if " just " in asked[1]:
            holds = asked[1].replace(" just", "") in map(tell, over(story, now - 1, now))
        else:
            event = story.event_at(now)
            scenes = (event.after,) if now >= event.stop else (event.before, event.after)
            changing += len(scenes) == 2
            (holds,) = {_is_so(asked[1], scene) for scene in scenes}  # what is changing is not asked about
        assert question.answer == ("yes" if holds else "no"), (question, now)
        said["just" if " just " in asked[1] else "state", question.answer] += 1
    assert len(said) == 4 and 0.3 < said["state", "yes"] / (said["state", "yes"] + said["state", "no"]) < 0.7, said
    assert changing > 20


def test_what_does_not_hold_is_mostly_nearly_so_and_no_look_that_is_held_out() -> None:
    rng, words, near = random.Random(0), Counter[str](), 0
    story = Story(7000, looks="seen")
    for tick in range(40, 1000):
        asked = fact(story, tick / 2, rng)
        if asked is None or asked[1]:
            continue
        condition = asked[0]
        words[condition] += 1
        near += any(_one_word_off(condition, one) for one in facts(story.event_at(tick / 2).after))
        assert not any(f"{color} {shape}" in condition for color, shape in HELD_OUT), condition
    assert near / words.total() > 0.4 and len(words) > 100


def _one_word_off(text: str, other: str) -> bool:
    pairs = list(zip_longest(text.replace(" an ", " a ").split(), other.replace(" an ", " a ").split()))
    return bool(sum(one != two for one, two in pairs) == 1)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("there is an orange star", r"there is an? \w+ \w+"),
        ("the red star is in the top left", rf"the \w+ \w+ is in the (?:{'|'.join(PLACES)})"),
        ("the sign shows 40", r"the sign shows \d{1,2}"),
        ("the red star left", r"the \w+ \w+ (entered|left|blinked)"),
        ("the pink star turned blue", r"the \w+ \w+ turned \w+"),
        ("the sign changed to slow", "the sign changed to (go|slow|stop|wait)"),
        ("the camera shook", "the camera shook"),
        ("the sign left", "the sign left"),
    ],
)
def test_a_condition_altered_in_one_word_is_one_still(text: str, like: str) -> None:
    found = {altered(text, random.Random(seed)) for seed in range(60)}
    assert all(re.fullmatch(like, one) for one in found), found
    assert not any(re.search(r"an (?!orange)|a orange", one) for one in found)
    assert (len(found) > 1) == (text not in ("the camera shook", "the sign left"))


def _is_so(condition: str, scene: Scene) -> bool:
    things = {f"{t.color} {t.shape}": PLACES[t.cell] for t in scene.things}
    if condition == "the light is dim":
        return scene.dim
    if condition == "there is a sign":
        return scene.sign is not None
    if condition.startswith("the sign shows "):
        return scene.sign is not None and scene.sign.text == condition.split()[-1]
    if condition.startswith("there is "):
        return condition.removeprefix("there is ").split(" ", 1)[1] in things
    name, _, place = condition.removeprefix("the ").partition(" is in the ")
    return things.get(name) == place


def _spoken() -> Iterator[str]:
    """Everything that is asked and answered on thirty streams, and every phrasing of the questions about a scene."""
    yield from phrases()
    for seed in range(30):
        story = Story(seed)
        yield from (told.statement for told in narration(story, 200))
        yield from (watch.condition for watch in watches_for(story, 200, 8))
        for one in exam(story, 200, 60, kinds=tuple(KINDS), distances=(0, 60)):
            yield from (one.question.text, one.question.answer, *one.question.others)


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = build_tokenizer()
    words = {w for text in _spoken() for w in re.findall(r"[A-Za-z]+", text)}
    assert {"color", "slow", "dimmed", "happened", "blinking", "tell"} <= words
    forms = {form for word in words for form in (word, f" {word}", word.capitalize(), f" {word.capitalize()}")}
    spelt = {form for form in forms if len(tokenizer(form, add_special_tokens=False)["input_ids"]) != 1}
    # Left out of the word list by mistake; adding it would need new weights.
    assert {form.strip().lower() for form in spelt} <= {"whether"}
