"""Notes: what is kept, what is found again, and who writes them."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import Driver, random_blocks
from families import random_model
from test_agent import LONG, frames
from test_narration import Says

from streamvlm import Agent, Note, Notes, NoteTaken, StoreError, prompts
from streamvlm.engine.evidence import Moment
from streamvlm.engine.fusion import fuse
from streamvlm.engine.notetaker import CHAPTER, Jot, NoteTaker
from streamvlm.engine.segments import Boundaries
from streamvlm.engine.sight import UNKNOWN, Change, Sight
from streamvlm.memory.notes import NAME
from streamvlm.types import VisionTokens


def some(path: Path | None = None) -> Notes:
    notes = Notes(path)
    notes.add(0.0, 8.0, "observation", "a red ball enters from the left")
    notes.add(8.0, 20.0, "observation", "the sign shows 42")
    notes.add(20.0, 31.0, "hypothesis", "how many balls came in? one ball")
    notes.add(25.0, 25.0, "answer", "what is the sign's number? 42")
    return notes


def texts(notes: Sequence[Note]) -> list[str]:
    return [note.text for note in notes]


def test_notes_are_found_by_their_words_in_any_form() -> None:
    notes = some()
    assert texts(notes.find("when did the balls enter?"))[0] == "a red ball enters from the left"
    assert {n.start for n in notes.find("what did the signs show?")} == {8.0, 25.0}
    assert notes.find("elephants") == () and notes.find("what is it?") == ()
    assert all(n.score > 0 for n in notes.find("red ball"))


def test_notes_are_found_by_time_and_kind() -> None:
    notes = some()
    assert [n.start for n in notes.find(between=(7.0, 9.0))] == [0.0, 8.0]
    assert [n.kind for n in notes.find("ball", kinds=["hypothesis"])] == ["hypothesis"]
    assert [n.start for n in notes.find(limit=2)] == [20.0, 25.0], "without a query the newest"


@pytest.mark.parametrize("query", ['"', "ball OR", "a* NEAR/2 (", "text:ball", "'; DROP TABLE notes; --", "日本"])
def test_no_query_is_a_command(query: str) -> None:
    notes = some()
    notes.find(query)
    assert len(notes) == 4


def test_notes_outlive_the_process_that_took_them(tmp_path: Path) -> None:
    path = tmp_path / NAME
    first = some(path)
    first.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Notes(path)
    assert again.find() == first.find()
    new = again.add(40.0, 41.0, "observation", "it ends")
    assert new.id == 5 and texts(again.find("ends")) == ["it ends"]
    again.close()
    assert len(Notes(path)) == 5


def test_what_is_no_store_of_notes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"something else entirely, and long enough to be a header" * 100)
    with pytest.raises(StoreError, match="no notes can be read"):
        Notes(path)


def test_a_disk_that_takes_nothing_is_counted(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "missing" / NAME)
    notes.add(0.0, 1.0, "observation", "something")
    notes.close()
    assert notes.unwritten == 1 and texts(notes.find("something")) == ["something"]


@pytest.mark.parametrize("wrong", [(2.0, 1.0, "answer", "x"), (0.0, 1.0, "answer", " "), (0.0, 1.0, "guess", "x")])
def test_a_note_must_make_sense(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"note needs|kind='guess'"):
        Notes().add(*wrong)


CALM, SUDDEN = Change(0.01, 1.0, 0.001), Change(0.9, 0.2, 0.3)


def cut(changes: Sequence[Change], **options: Any) -> list[tuple[float, float]]:
    """The segments of a stream of one block per second."""
    boundaries = Boundaries(**options)
    found = [boundaries.see(float(i), change) for i, change in enumerate(changes)]
    return [segment for segment in found if segment is not None]


def test_a_segment_ends_where_something_unexpected_happens() -> None:
    changes = [CALM] * 30
    changes[12] = SUDDEN
    assert cut(changes, most=100.0) == [(0.0, 12.0)]


def test_segments_are_neither_too_short_nor_too_long() -> None:
    assert cut([CALM] * 45) == [(0.0, 20.0), (20.0, 40.0)]
    restless = [SUDDEN if i % 3 == 0 else CALM for i in range(40)]
    assert all(4.0 <= stop - start <= 20.0 for start, stop in cut(restless))


def test_a_picture_that_always_moves_is_not_always_a_surprise() -> None:
    moving = [Change(0.5, 0.5, 0.05 + 0.002 * (i % 3)) for i in range(19)]
    assert cut(moving) == []


def test_sight_tells_what_changed_and_forgives_what_was_left_out() -> None:
    sight, generator = Sight(), torch.Generator().manual_seed(0)
    picture = torch.randn(6, 16, generator=generator)

    def see(rows: torch.Tensor, slots: list[int]) -> Change:
        return sight.see(VisionTokens(rows[slots], (), torch.tensor(slots), (2, 3), 0.0, 0.5))

    every = list(range(6))
    assert see(picture, every) == UNKNOWN
    same = see(picture, every)
    assert same.most < 1e-5 and same.drop_ratio == 1.0 and same.surprise < 1e-5
    assert see(picture, [0, 3]).drop_ratio == 1.0, "places that a pruner left out are as they were"
    other = picture.clone()
    other[2] = -other[2]
    changed = see(other, every)
    assert changed.most == pytest.approx(2.0, abs=1e-5) and changed.drop_ratio == pytest.approx(5 / 6)
    assert see(other, every).surprise > 0, "what was expected follows only half-way"


def jots(taker: NoteTaker) -> list[Jot]:
    found = []
    while taker.due:
        found.append(taker.take())
    return found


def segment(taker: NoteTaker, start: float, stop: float) -> None:
    taker.boundaries.start = start
    taker.finish(stop)


def test_a_late_note_is_about_both_segments() -> None:
    taker = NoteTaker(Notes())
    segment(taker, 0.0, 5.0)
    segment(taker, 5.0, 12.0)
    (jot,) = jots(taker)
    assert (jot.start, jot.stop, jot.question) == (0.0, 12.0, prompts.note_request(0.0))


def test_nothing_new_is_no_note_and_ten_are_a_chapter() -> None:
    taker = NoteTaker(Notes())
    for i in range(CHAPTER):
        taker.standing = []
        assert list(taker.wrote(Jot("", "observation", 99.0, 99.0), prompts.NOTHING)) == []
        made = list(taker.wrote(Jot("", "observation", float(i), i + 1.0), "a ball" if i % 2 else f"event {i}"))
    assert [n.kind for n in made] == ["observation", "chapter"]
    chapter = made[1]
    assert (chapter.start, chapter.stop) == (0.0, CHAPTER) and len(chapter.parts) == CHAPTER
    assert chapter.text.count("a ball") == 1


def test_a_standing_question_builds_on_its_last_thought() -> None:
    taker = NoteTaker(Notes(), standing=["how many balls came in?"])
    segment(taker, 0.0, 5.0)
    thought = jots(taker)[1]
    assert thought.question == "how many balls came in?"
    (note,) = taker.wrote(thought, "one")
    assert (note.kind, note.text) == ("hypothesis", "how many balls came in? one")
    assert list(taker.wrote(thought, "one")) == [], "no new thought, no new note"
    segment(taker, 5.0, 9.0)
    assert jots(taker)[1].question == prompts.with_notes([(9.0, "one")], "how many balls came in?")


def test_a_question_that_was_kept_track_of_is_shown_the_last_thought_of_it() -> None:
    taker = NoteTaker(Notes(), standing=["how many balls came in?"])
    for stop, line in ((5.0, "one"), (9.0, "two")):
        segment(taker, stop - 4, stop)
        list(taker.wrote(jots(taker)[1], line))
    for window in [(0.0, 10.0)], [(9.5, 10.0)]:
        shown = taker.for_question("how many balls came in?", 10.0, window)
        assert [n.text for n in shown] == ["how many balls came in? two"]
    assert taker.for_question("how many cats came in?", 10.0, [(0.0, 10.0)]) == []


def test_a_question_is_shown_what_it_does_not_see_anyway() -> None:
    taker = NoteTaker(some())
    found = taker.for_question("what number was on the sign?", 60.0, [(44.0, 60.0)])
    assert [n.start for n in found] == [8.0, 25.0]
    assert [n.start for n in taker.for_question("what number was on the sign?", 30.0, [(8.0, 31.0)])] == []
    named = [n.start for n in taker.for_question("what happened at 0:09?", 60.0, [(44.0, 60.0)])]
    assert 8.0 in named and not {20.0, 25.0} & set(named)


def test_segments_are_noted_while_watching_goes_on_and_the_answer_is_shown_them() -> None:
    model = random_model("llava_onevision")
    driver = Driver(model)
    stream = driver.watch(random_blocks(model, 60), paced=False, ended=True, notes=True, window_seconds=4.0)
    stream.mind.taker = NoteTaker(Notes(), Boundaries(least=4.0, most=6.0))
    stream.play_until, asked = 25.0, None
    said = iter(f"the sign shows {i}" for i in range(20))
    answer = None
    while driver.step() or answer is None:
        if stream.background and stream.background[0] is not asked:
            asked = stream.background[0]
            asked.sampler = Says([*model.tokenize(next(said)), *model.eos_tokens])
        if stream.now >= 25.0 and answer is None and not stream.background:
            answer = driver.ask(stream, "what did the sign show?")
            driver.step()
            (reader,) = stream.readers
    notes = [e.note for e in driver.events if isinstance(e, NoteTaken)]
    observed = [n for n in notes if n.kind == "observation"]
    assert len(observed) >= 4 and all(b.start == a.stop for a, b in pairwise(observed))
    assert 0 < len(reader.notes) <= 6
    assert all(text.startswith("the sign shows") for _, text in reader.notes)
    text = prompts.with_notes(reader.notes, "what did the sign show?")
    assert len(reader.prompt) == len(model.question_layout(text))


def test_a_stream_with_a_store_keeps_its_notes_with_it(tmp_path: Path) -> None:
    model = random_model("llava_onevision")
    with Agent(model) as agent:
        with agent.watch(frames(60), notes=True, store=str(tmp_path)) as stream:
            stream.wait(LONG)
            stream.ask("what is it?").text(LONG)
            taken = stream.notes()
            assert {n.kind for n in taken} >= {"observation"}
        with agent.resume(tmp_path, notes=True) as past:
            assert past.notes() == taken
            with pytest.raises(ValueError, match="kinds="):
                past.notes(kinds=["rumour"])  # type: ignore[list-item]


def test_moments_and_notes_are_one_list_by_rank() -> None:
    moments = [Moment(0.0, 1.0, 0.9), Moment(5.0, 6.0, 0.95), Moment(30.0, 31.0, 0.1)]
    notes = [Note(1, 4.0, 8.0, "observation", "a ball", score=3.0), Note(2, 50.0, 58.0, "answer", "it?", score=1.0)]
    found = fuse(moments, notes)
    assert [m.start for m in found] == [0.0, 5.0, 30.0, 50.0]
    best = max(found, key=lambda m: m.score)
    assert best.start == 5.0, "both speak of it"
    assert best.score == pytest.approx(2 / 60) and found[2].score == pytest.approx(1 / 62)
    assert fuse([], []) == ()


def test_a_stream_without_a_store_recalls_what_it_noted() -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(4), notes=True) as stream:
        stream.wait(LONG)
        taker = stream._state.mind.taker
        assert taker is not None
        taker.notes.add(1.0, 1.5, "observation", "an elephant came by")
        (found,) = stream.recall("elephants")
        assert (found.start, found.stop) == (1.0, 1.5)


def test_a_stream_that_takes_no_notes_says_so() -> None:
    with Agent(random_model("llava_onevision")) as agent, agent.watch(frames(2)) as stream:
        with pytest.raises(ValueError, match="notes=True"):
            stream.notes("anything")
        with pytest.raises(ValueError, match="notes=True"):
            stream.keep_track("how many?")
