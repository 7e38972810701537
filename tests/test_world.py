from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import of_scene

from streamvlm.world.exam import exam
from streamvlm.world.happenings import HELD_OUT_DEEDS, Looks
from streamvlm.world.happenings import KINDS as EVENTS
from streamvlm.world.paint import Painter, camera_offset, sprites_at
from streamvlm.world.questions import NONE, TASKS, ask
from streamvlm.world.scene import CANVAS, COLORS, HELD_OUT, PLACES, WORDS, cell_center
from streamvlm.world.story import QUIET_BEFORE, Event, Pace, Story
from streamvlm.world.video import VideoSpec, frames, render


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
        elif event.kind == "recolor":
            assert event.thing is not None
            assert before[event.thing].color != after[event.thing].color
        elif event.kind == "sign":
            assert event.before.sign != event.after.sign and before == after
        elif event.kind == "light":
            assert event.before.dim != event.after.dim and before == after
        elif event.kind in ("blink", "hit", "shake"):
            assert event.before == event.after and event.stop > event.start
            assert (event.thing in before) == (event.kind != "shake") and (event.other in before) == (
                event.kind == "hit"
            )
    assert set(seen) == {"start", "cut", *EVENTS} and min(seen.values()) > 0


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


def _shown(kind: str, noise: float | None = None) -> tuple[Story, Event]:
    """The first event of a kind with a still moment before it, in a story with or without noise."""
    for seed in range(400):
        story = Story(seed)
        if noise is None or story.noise == noise:
            for event in story.until(60):
                if event.kind == kind and event.start > 1:
                    return story, event
    raise AssertionError(f"no {kind}")


def _mean(story: Story, time: float, at: tuple[float, float], size: int = 8) -> NDArray[np.float64]:
    x, y = (round(v) for v in at)
    patch = Painter().frame(story, time)[y - size : y + size, x - size : x + size]
    return np.asarray(patch.mean((0, 1)), np.float64)


def test_a_blinking_thing_is_gone_for_a_while() -> None:
    story, event = _shown("blink", 0.0)
    sprite = next(s for s in sprites_at(story, event.start - 0.1)[0] if s.thing.id == event.thing)
    at, tint = (sprite.x, sprite.y), np.array(sprite.thing.tint) * (0.5 if event.before.dim else 1)
    there = [np.abs(_mean(story, t, at) - tint).max() for t in (event.start - 0.1, event.stop + 0.1)]
    gone = np.abs(_mean(story, (event.start + event.stop) / 2, at) - tint).max()
    assert max(there) < 30 and gone > 60


def test_a_hit_is_a_way_there_and_back() -> None:
    story, event = _shown("hit")

    def apart(time: float) -> float:
        here = {s.thing.id: s for s in sprites_at(story, time)[0]}
        assert event.thing is not None and event.other is not None
        a, b = here[event.thing], here[event.other]
        return float(np.hypot(a.x - b.x, a.y - b.y) - (a.size + b.size) / 2)

    middle = (event.start + event.stop) / 2
    assert apart(middle) < 3, "they touch"
    assert apart(event.start - 0.05) > 3 and abs(apart(event.stop + 0.05) - apart(event.start - 0.05)) < 6


def test_a_shaking_camera_displaces_everything() -> None:
    story, event = _shown("shake", 0.0)
    painter, still = Painter(), event.start - 0.05
    steps = np.linspace(event.start, event.stop, 8, endpoint=False)
    moved = [np.abs(painter.frame(story, t).astype(int) - painter.frame(story, still)).mean() for t in steps]
    rest = np.abs(painter.frame(story, event.stop + 0.05).astype(int) - painter.frame(story, still)).mean()
    assert min(moved) > 2 * rest and min(moved) > 0.5
    dx, dy = camera_offset(story, float(steps[3]))
    back = np.roll(painter.frame(story, float(steps[3])), (-dy, -dx), (0, 1)).astype(int)
    assert np.abs(back - painter.frame(story, still)).mean() < min(moved), "displaced, and nothing else"


def test_dimmed_light_halves_what_is_seen() -> None:
    story, event = _shown("light", 0.0)
    painter = Painter()
    dark, bright = sorted(painter.frame(story, t).mean() for t in (event.start - 0.05, event.start + 0.05))
    assert dark / bright == pytest.approx(0.5, abs=0.05)
    darker = event.after if event.after.dim else event.before
    assert darker.dim and (painter.frame(story, event.start + 0.05).mean() < bright) == event.after.dim


def test_noise_is_as_strong_as_the_story_says() -> None:
    levels = {Story(seed).noise for seed in range(60)}
    assert 0.0 in levels and max(levels) > 5
    for seed in range(60):
        story = Story(seed)
        cell = next(iter(story.events[0].after.free_cells))
        x, y = (round(v) for v in cell_center(cell))
        patch = Painter().frame(story, 0.0)[y - 8 : y + 8, x - 8 : x + 8].astype(float)
        if story.noise > 5:
            assert 0.5 * story.noise < patch[..., 1].std() < 2 * story.noise + 3
            assert not np.array_equal(patch, Painter().frame(story, 0.05)[y - 8 : y + 8, x - 8 : x + 8])
        assert np.array_equal(patch, Painter().frame(Story(seed), 0.0)[y - 8 : y + 8, x - 8 : x + 8])


def _looks_and_deeds(looks: Looks) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    seen, done = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for seed in range(12):
        for event in Story(seed, looks=looks).until(300):
            seen.update((t.color, t.shape) for t in event.after.things)
            done.update((event.kind, t.shape) for t in event.before.things if t.id == event.thing)
    return seen, done


def test_what_is_held_out_is_never_shown_in_training_and_shown_otherwise() -> None:
    seen, done = _looks_and_deeds("seen")
    assert not HELD_OUT & set(seen) and not HELD_OUT_DEEDS & set(done)
    assert {shape for _, shape in HELD_OUT} <= {shape for _, shape in seen}, "every shape is known, and every colour"
    assert {color for color, _ in HELD_OUT} <= {color for color, _ in seen}
    assert {kind for kind, _ in HELD_OUT_DEEDS} <= {kind for kind, _ in done}
    everything, deeds = _looks_and_deeds("all")
    assert set(everything) >= HELD_OUT and set(deeds) >= HELD_OUT_DEEDS
    unseen, _ = _looks_and_deeds("held_out")
    share = sum(unseen[look] for look in HELD_OUT) / unseen.total()
    assert share > 0.5 > 0.3 > sum(everything[look] for look in HELD_OUT) / everything.total()


def test_words_on_signs_follow_their_order() -> None:
    pairs = set()
    for seed in range(40):
        for event in Story(seed).until(300):
            old, new = event.before.sign, event.after.sign
            if event.kind == "sign" and old and new:
                assert (old.text in WORDS) == (new.text in WORDS)
                pairs |= {(old.text, new.text)} if old.text in WORDS else set()
    assert pairs == {("go", "slow"), ("slow", "stop"), ("stop", "wait"), ("wait", "go")}


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_true_and_stay_true_around_the_question(seed: int) -> None:
    story = Story(seed)
    asked = exam(story, 120, 120, kinds=TASKS)
    assert len(asked) == 120
    for q in asked:
        for time in (q.time, q.time - QUIET_BEFORE / 2, np.floor(q.time * 2) / 2):
            scene = story.scene_at(float(time))
            assert scene is not None, "something is happening while the question is asked"
            assert of_scene(scene, q.question.text) == q.question.answer, (q, scene)


def test_answers_are_balanced() -> None:
    answers: dict[str, Counter[str]] = {task: Counter() for task in TASKS}
    for seed in range(3):
        for q in exam(Story(seed), 300, 200, kinds=TASKS):
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
