from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from streamvlm.world.paint import Painter, sprites_at
from streamvlm.world.questions import NONE, TASKS, Question, ask, questions_for
from streamvlm.world.scene import CANVAS, COLORS, PLACES, SHAPES, Scene, cell_center
from streamvlm.world.story import QUIET_BEFORE, Pace, Story
from streamvlm.world.video import VideoSpec, frames, render


def _named(text: str, words: tuple[str, ...]) -> list[str]:
    """Which of `words` a question names, plurals included."""
    tokens = [t.strip("?.,") for t in text.lower().replace("crosses", "cross").split()]
    return [w for w in words if w in tokens or f"{w}s" in tokens]


def _truth(scene: Scene, question: Question) -> str:
    """The answer worked out from the question's words alone, without the generator's help."""
    color = next(iter(_named(question.text, tuple(COLORS))), None)
    shape = next(iter(_named(question.text, SHAPES)), None)
    found = [t for t in scene.things if color in (None, t.color) and shape in (None, t.shape)]
    about_sign = "sign" in question.text
    if question.task == "sign":
        return str(scene.sign.text) if scene.sign else NONE
    if question.task == "next":
        assert scene.sign is not None
        return {"go": "slow", "slow": "stop", "stop": "wait", "wait": "go"}[scene.sign.text]
    if question.task == "count":
        return str(len(found))
    if question.task == "is-there":
        return "yes" if (scene.sign is not None if about_sign else bool(found)) else "no"
    if question.task == "place" and about_sign:
        return PLACES[scene.sign.cell] if scene.sign else NONE
    assert len(found) <= 1, f"ambiguous: {question}"
    if not found:
        return NONE
    return {"color": found[0].color, "shape": found[0].shape, "place": PLACES[found[0].cell]}[question.task]


def test_same_seed_same_story_other_seed_other_story() -> None:
    assert Story(3).until(60) == Story(3).until(60)
    assert Story(3).until(60) != Story(4).until(60)


def test_a_story_does_not_depend_on_the_order_it_is_read_in() -> None:
    late = Story(5)
    late.event_at(100)
    assert late.until(50) == Story(5).until(50)


def test_events_follow_one_another_without_overlap() -> None:
    events = Story(7).until(300)
    assert len(events) > 50
    for earlier, later in pairwise(events):
        assert earlier.stop < later.start
        assert later.before == earlier.after


def test_events_do_what_their_kind_says() -> None:
    seen: Counter[str] = Counter()
    for event in Story(11).until(600):
        seen[event.kind] += 1
        before, after = {t.id: t for t in event.before.things}, {t.id: t for t in event.after.things}
        if event.kind == "enter":
            assert set(after) - set(before) == {event.thing}
        elif event.kind == "leave":
            assert set(before) - set(after) == {event.thing}
        elif event.kind == "move":
            assert event.thing is not None
            assert before[event.thing].cell != after[event.thing].cell
        elif event.kind == "sign":
            assert event.before.sign != event.after.sign and before == after
    assert min(seen[kind] for kind in ("enter", "leave", "move", "sign", "cut")) > 0


def test_things_never_share_a_place_or_a_look() -> None:
    for event in Story(13).until(600):
        scene = event.after
        cells = [t.cell for t in scene.things] + ([scene.sign.cell] if scene.sign else [])
        looks = [(t.color, t.shape) for t in scene.things]
        assert len(set(cells)) == len(cells)
        assert len(set(looks)) == len(looks)


def test_the_picture_shows_what_the_log_says() -> None:
    painter = Painter()
    for seed in range(30):
        story = Story(seed)
        picture, scene = painter.frame(story, 0.0), story.scene_at(0.0)
        assert scene is not None
        for sprite in sprites_at(story, 0.0)[0]:
            pixel = picture[round(sprite.y), round(sprite.x)]
            shown = np.array(sprite.thing.tint) * (0.5 if scene.dim else 1)
            assert np.abs(pixel - shown).max() <= 1 + 4.5 * story.noise
        for cell in scene.free_cells:
            x, y = (round(v) for v in cell_center(cell))
            assert picture[y, x].max() < 120 + 4.5 * story.noise  # backdrops are muted


def test_a_moving_thing_is_drawn_between_its_places() -> None:
    story = Story(17)
    move = next(e for e in story.until(300) if e.kind == "move")
    middle, _ = sprites_at(story, (move.start + move.stop) / 2)
    sprite = next(s for s in middle if s.thing.id == move.thing)
    ends = [next(t for t in scene.things if t.id == move.thing) for scene in (move.before, move.after)]
    (x0, y0), (x1, y1) = (cell_center(t.cell) for t in ends)
    assert min(x0, x1) - 6 <= sprite.x <= max(x0, x1) + 6
    assert min(y0, y1) - 6 <= sprite.y <= max(y0, y1) + 6
    assert story.scene_at((move.start + move.stop) / 2) is None


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_true_and_stay_true_around_the_question(seed: int) -> None:
    story = Story(seed)
    asked = questions_for(story, 120, 120)
    assert len(asked) == 120
    for q in asked:
        for time in (q.time, q.time - QUIET_BEFORE / 2, np.floor(q.time * 2) / 2):
            scene = story.scene_at(float(time))
            assert scene is not None, "something is happening while the question is asked"
            assert _truth(scene, q.question) == q.question.answer, (q, scene)


def test_answers_are_balanced() -> None:
    answers: dict[str, Counter[str]] = {task: Counter() for task in TASKS}
    for seed in range(3):
        for q in questions_for(Story(seed), 300, 200):
            answers[q.question.task][q.question.answer] += 1
    for task, most in {"color": 0.2, "shape": 0.25, "count": 0.25, "place": 0.18, "sign": 0.15}.items():
        assert max(answers[task].values()) <= most * answers[task].total(), (task, answers[task])
    assert 0.4 < answers["is-there"]["yes"] / answers["is-there"].total() < 0.6
    assert set(answers["color"]) == {*COLORS, NONE}
    assert set(answers["place"]) == {*PLACES, NONE}


def test_unknown_task_is_refused() -> None:
    scene = Story(0).scene_at(0)
    assert scene is not None
    with pytest.raises(ValueError, match="weather"):
        ask(scene, "weather", random.Random(0))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="crf"):
        VideoSpec(crf=99)
    with pytest.raises(ValueError, match="chance"):
        Pace(cut=2)
    with pytest.raises(ValueError, match="starts at 0"):
        Story(0).event_at(-1)


def test_rendered_world_is_real_video_with_questions(tmp_path: Path) -> None:
    render(21, 10.0, tmp_path / "a", VideoSpec(fps=8), questions=12)
    render(21, 10.0, tmp_path / "b", VideoSpec(fps=8), questions=12)
    for name in ("qa.json", "events.json", "video.mp4"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    rows = json.loads((tmp_path / "a" / "qa.json").read_text())
    keys = {"time", "question", "answer", "task", "group", "ovo", "distance", "needs", "options"}
    assert len(rows) == 12 and all(set(row) == keys for row in rows)
    assert all(0 < r["time"] < 10 for r in rows)
    log = json.loads((tmp_path / "a" / "events.json").read_text())
    assert [e["start"] for e in log["events"]] == [round(e.start, 3) for e in Story(21).until(10)]
    with av.open(str(tmp_path / "a" / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        decoded = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    drawn = list(frames(Story(21), 10.0, 8))
    assert len(decoded) == len(drawn) == 80
    for (time, picture), (due, original) in zip(decoded, drawn, strict=True):
        assert time == pytest.approx(due)
        assert picture.shape == (CANVAS, CANVAS, 3)
        assert np.abs(picture.astype(int) - original).mean() < 6
