"""The exam: every kind of question, its answer worked out again from the log, and what it needs."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from oracle import answer, of_scene, over, seconds, tell

from streamvlm.world.choices import lettered
from streamvlm.world.exam import ASKED, DISTANCES, WINDOW, exam
from streamvlm.world.kinds import KINDS, make
from streamvlm.world.questions import Question, TimedQuestion
from streamvlm.world.report import lines, survey
from streamvlm.world.story import Event, Story
from streamvlm.world.templates import template
from streamvlm.world.truths import narration, watches_for
from streamvlm.world.view import View

HOUR = 3600.0
Sheet = list[tuple[Story, TimedQuestion]]


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    """Exams on fifty streams of three minutes, about the window and about a minute ago."""
    stories = [Story(4000 + seed) for seed in range(50)]
    return [(s, one) for s in stories for one in exam(s, 180, 64, distances=(WINDOW, 60))]


def test_every_answer_follows_from_the_log(sheet: Sheet) -> None:
    checked: Counter[str] = Counter()
    for story, one in sheet:
        question = one.question
        assert answer(story, question.task, question.text, one.time) == question.answer, (story.seed, one)
        checked[question.task] += 1
    assert set(checked) == set(ASKED) and min(checked.values()) >= 20, checked


def test_questions_are_asked_where_a_stream_of_two_frames_per_second_has_a_frame(sheet: Sheet) -> None:
    assert all((one.time * 2).is_integer() and 0 < one.time < 180 for _, one in sheet)


def test_the_window_holds_what_its_questions_need_and_far_ones_lie_where_they_should(sheet: Sheet) -> None:
    for _, one in sheet:
        first, last = one.question.needs or (one.time, one.time)
        assert first <= last <= one.time
        if one.distance == WINDOW:
            assert first >= one.time - 16, one
            continue
        named = seconds(one.question.text.rstrip("?").split()[-1])
        assert one.question.task == "episode" and 54 <= one.time - named <= 66
        assert named - 4 <= first < named and named - 0.5 < last <= named + 1, one


class Glimpse(Story):
    """The story as somebody knows it who has seen [start, stop) and nothing else."""

    def __init__(self, story: Story, start: float, stop: float) -> None:
        super().__init__(story.seed)
        events = story.until(stop)
        seen = [e for e in events if e.kind == "start" or (e.start >= start and e.stop <= stop)]
        self.events = seen if seen[-1] is events[-1] else [*seen, events[-1]]  # the scene that it found

    def event_at(self, time: float) -> Event:
        return max((e for e in self.events if e.start <= time), key=lambda e: e.start)

    def until(self, time: float) -> list[Event]:
        return [e for e in self.events if e.start < time]


def test_what_a_question_needs_is_enough_to_answer_it(sheet: Sheet) -> None:
    tried = 0
    for story, one in sheet:
        question = one.question
        if question.needs is None or question.task == "clue" or question.answer in ("no", "0", "none"):
            continue  # what did not happen shows in the whole stretch
        assert answer(Glimpse(story, *question.needs), question.task, question.text, one.time) == question.answer, one
        tried += 1
    assert tried > 300


def test_answers_are_even(sheet: Sheet) -> None:
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for _, one in sheet:
        given[one.question.task][one.question.answer] += 1
    for kind in ("is-there", "step", "clue"):
        assert set(given[kind]) == {"yes", "no"}
        assert 0.35 <= given[kind]["yes"] / given[kind].total() <= 0.65, (kind, given[kind])
    for kind, most in {"color": 0.2, "shape": 0.25, "place": 0.2, "count": 0.35, "action": 0.5, "never": 0.4,
                       "repetition": 0.5, "sign": 0.2}.items():  # fmt: skip
        assert max(given[kind].values()) <= most * given[kind].total(), (kind, given[kind])


def test_exams_are_the_same_again_and_other_seeds_ask_other_things() -> None:
    first = exam(Story(9), 300, 30)
    assert exam(Story(9), 300, 30) == first != exam(Story(9), 300, 30, seed=1)
    read_before = Story(9)
    read_before.event_at(5000)
    assert exam(read_before, 300, 30) == first
    assert len({(one.time, one.question.text) for one in first}) == 30


def test_offered_answers_hold_the_right_one_and_its_letter(sheet: Sheet) -> None:
    offered = exam(Story(9), 300, 60, options=1.0)
    plain = {(one.time, one.question.text): one.question for one in exam(Story(9), 300, 60)}
    letters: Counter[str] = Counter()
    for one in offered:
        if " A. " not in one.question.text:
            assert plain[one.time, one.question.text].others == ()
            continue
        text, _, listed = one.question.text.partition(" A. ")
        options = dict(zip("ABCD", listed.replace(" B. ", "|").replace(" C. ", "|").replace(" D. ", "|").split("|"),
                           strict=False))  # fmt: skip
        assert options[one.question.answer] == plain[one.time, text].answer
        assert len(set(options.values())) == len(options) >= 2
        letters[one.question.answer] += 1
    assert set(letters) == set("ABCD")
    for story, one in sheet:  # what is offered besides is wrong
        assert one.question.answer not in one.question.others
        assert answer(story, one.question.task, one.question.text, one.time) not in one.question.others


def test_a_day_costs_its_event_log_and_no_more() -> None:
    story = Story(31)
    asked = exam(story, 24 * HOUR, 38, distances=DISTANCES)
    assert max(one.time for one in asked) > 20 * HOUR
    assert {one.distance for one in asked} == set(DISTANCES)
    for one in asked:
        question = one.question
        if one.distance:
            assert question.needs and abs(one.time - question.needs[1] - one.distance) <= 0.1 * one.distance + 3
        if question.task not in ("before", "clue"):  # these read the whole day
            assert answer(story, question.task, question.text, one.time) == question.answer
    assert story.events[-2].start <= 24 * HOUR, "written further than anybody can have seen"


def test_a_late_question_reads_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    story, read = Story(32), 0
    story.event_at(23.5 * HOUR)
    between = Story.between

    def counted(self: Story, start: float, stop: float) -> object:
        nonlocal read
        found = between(self, start, stop)
        read += len(found)
        return found

    monkeypatch.setattr(Story, "between", counted)
    rng = random.Random(0)
    for kind in KINDS:
        if kind == "episode":
            continue  # the exam names its moment
        for _ in range(5):
            make(kind, View(story, 0.0, 23 * HOUR + rng.randrange(2000) / 2, rng))
    assert read < 16 * 5 * 60, "a question reads the last seconds, not the day"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kinds": ("weather",)}, "weather"),
        ({"distances": (3600.0,)}, "need a stream of 3964 s, got 100 s"),
        ({"kinds": ("order",), "distances": (60.0,)}, "needs the kind 'episode'"),
        ({"distances": (-1.0,)}, "distances are 0"),
        ({"kinds": ()}, "no question"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, tuple[float, ...]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        exam(Story(1), 100, 5, **options)  # type: ignore[arg-type]


def test_too_many_questions_for_a_moment_are_refused() -> None:
    with pytest.raises(ValueError, match="of 500 questions of"):
        exam(Story(1), 5, 500, kinds=("next",))


def test_narration_tells_everything_once() -> None:
    story = Story(12)
    told = narration(story, 200)
    assert [(t.time, t.statement) for t in told] == [(e.stop, tell(e)) for e in over(story, 0, 200) if e.stop < 200]


@pytest.mark.parametrize("seed", range(6))
def test_watches_come_true_when_they_say_and_at_no_other_time(seed: int) -> None:
    story = Story(seed)
    watches = watches_for(story, 300, 16)
    assert sum(not w.onsets for w in watches) == 4 and len({w.condition for w in watches}) == 16
    for watch in watches:
        words = watch.condition
        if " just " in words:
            hits = [(e.start, e.stop) for e in over(story, 0, 300) if tell(e) == words.replace(" just", "")]
            assert [(o.begins, o.since) for o in watch.onsets] == hits, words
            continue
        for tick in range(600):
            scene = story.scene_at(tick / 2)
            told = [o for o in watch.onsets if o.since <= tick / 2 < o.until]
            if scene is not None:
                assert _holds(words, scene) == bool(told), (words, tick / 2)


def _holds(words: str, scene: object) -> bool:
    from streamvlm.world.scene import Scene

    assert isinstance(scene, Scene)
    if words == "the light is dim":
        return scene.dim
    if words.startswith("the sign shows"):
        return of_scene(scene, "what does the sign show?") == words.split()[-1]
    if words.startswith("there is"):
        return of_scene(scene, f"is {words.removeprefix('there is ')} there?") == "yes"
    name, _, place = words.removeprefix("the ").partition(" is in the ")
    return of_scene(scene, f"where is the {name}?") == place


def test_the_report_counts_every_question_and_blind_answers_stay_near_chance() -> None:
    found = survey(2_000_000, 12, 120.0, 48, distances=(WINDOW, 60))
    assert sum(r.asked for r in found) == 12 * 48
    by_kind = {(r.kind, r.distance): r for r in found}
    assert by_kind["episode", 60.0].back == pytest.approx(60, abs=8)
    assert by_kind["color", WINDOW].back is None
    for kind in ("color", "place", "sign", "before", "order"):
        assert max(by_kind[kind, WINDOW].constant, by_kind[kind, WINDOW].words) < 0.45, kind
    table = lines(found)
    assert len(table) == len(found) + 1 and len({len(line) for line in table}) == 1
    with pytest.raises(ValueError, match="at least 2"):
        survey(0, 1, 60, 4)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("what color was the star at 1:00:12?", "what color was the SHAPE at TIME"),
        ("did the red star blink in the last 15 seconds?", "did the COLOR SHAPE blink in the last 15 seconds"),
        ("what did the sign show after 42?", "what did the sign show after NUMBER"),
        ("Is there an orange cross?", "is there a COLOR SHAPE"),
        ("how many crosses are there?", "how many SHAPE are there"),
        ("is this true now: the red star is in the top left?", "is this true now: the COLOR SHAPE is in the PLACE"),
    ],
)
def test_a_template_is_the_words_without_the_things(text: str, bare: str) -> None:
    assert template(text) == bare


def test_letters_do_not_depend_on_the_answer() -> None:
    question = Question("color", "what color is it?", "red", None, ("blue", "green", "pink"))
    letters = Counter(lettered(question, random.Random(i)).answer for i in range(400))
    assert set(letters) == set("ABCD") and max(letters.values()) < 140
