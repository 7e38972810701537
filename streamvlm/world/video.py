"""Frames of a story, lazily or as real H.264, and a rendered world as a folder."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamvlm.world.choices import shuffled
from streamvlm.world.exam import ASKED, WINDOW, exam
from streamvlm.world.happenings import Looks
from streamvlm.world.kinds import KINDS
from streamvlm.world.paint import Painter
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.scene import CANVAS, PLACES, Scene
from streamvlm.world.story import Event, Story
from streamvlm.world.truths import watches_for
from streamvlm.world.wording import statement

Picture = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """How a story becomes a video."""

    fps: float = 12
    size: int = CANVAS  # pixels, side
    crf: int = 20  # x264 quality, lower is better

    def __post_init__(self) -> None:
        if not 0.1 <= self.fps <= 240 or self.size < 16 or self.size % 2 or not 0 <= self.crf <= 51:
            raise ValueError(f"need fps in 0.1..240, an even size >= 16 and crf in 0..51, got {self}")


def frames(story: Story, seconds: float, fps: float) -> Iterator[tuple[float, Picture]]:
    """(time in seconds, picture) at every 1/fps from 0, drawn as they are asked for."""
    painter = Painter()
    for index in range(round(seconds * fps)):
        yield index / fps, painter.frame(story, index / fps)


def encode(pictures: Iterable[Picture], to: str | BinaryIO, spec: VideoSpec) -> None:
    """Write H.264 in MP4; the bytes depend on nothing but the pictures."""
    with av.open(to, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(spec.fps).limit_denominator(1001))
        stream.width = stream.height = spec.size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # frame threads would change the rate control from run to run
        options = {"crf": str(spec.crf), "preset": "veryfast", "g": str(max(1, round(2 * spec.fps)))}
        stream.options = {**options, "x264-params": "mbtree=0"}  # with it the bytes differ from run to run
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_sized(picture, spec.size), format="rgb24")))
        container.mux(stream.encode(None))


def _sized(picture: Picture, size: int) -> Picture:
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked about a rendered world."""

    count: int = 0  # questions; 0 is one every two seconds, at least six
    kinds: Sequence[str] = ASKED
    distances: Sequence[float] = (WINDOW,)  # seconds back to what they need
    watches: int = 0  # conditions to wait for


def render(
    seed: int,
    seconds: float,
    out: Path,
    spec: VideoSpec,
    questions: int = 0,
    looks: Looks = "all",
    asking: Asking | None = None,
) -> None:
    """Write `video.mp4`, `qa.json`, `events.json` and, if there are watches, `watches.json` into `out`.

    docs/streamworld.md describes the files.

    Raises:
        ValueError: what is asked for cannot be asked in a stream of `seconds`.
    """
    story, asking = Story(seed, looks=looks), asking or Asking(questions)
    count = asking.count or max(6, round(seconds / 2))
    rng = random.Random(f"choices/{seed}")
    asked = exam(story, seconds, count, kinds=asking.kinds, distances=asking.distances)
    watches = [asdict(watch) for watch in watches_for(story, seconds, asking.watches)] if asking.watches else []
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "qa.json", [question_row(one, rng) for one in asked])
    log = {"seed": seed, "looks": looks, "seconds": seconds, "fps": spec.fps, "size": spec.size, "noise": story.noise}
    _write(out / "events.json", {**log, "events": [event_row(event) for event in story.until(seconds)]})
    if watches:
        _write(out / "watches.json", watches)
    encode((picture for _, picture in frames(story, seconds, spec.fps)), str(out / "video.mp4"), spec)


def _write(path: Path, rows: object) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n")


def question_row(one: TimedQuestion, rng: random.Random) -> dict[str, Any]:
    """A question as JSON: what, when, the truth, and what one must have seen to know it."""
    question = one.question
    kind = KINDS[question.task]
    return {
        "time": one.time,
        "question": question.text,
        "answer": question.answer,
        "task": question.task,
        "group": kind.group,
        "ovo": kind.code,
        "distance": one.distance,
        "needs": [round(second, 3) for second in question.needs] if question.needs else None,
        "options": shuffled(question, rng) if question.others else None,
    }


def event_row(event: Event) -> dict[str, Any]:
    """An event as JSON: what happened, when, and everything that is true afterwards."""
    told = None if event.kind == "start" else statement(event)
    row = {"kind": event.kind, "start": round(event.start, 3), "stop": round(event.stop, 3), "statement": told}
    return {**row, "thing": event.thing, "other": event.other, "scene": scene_row(event.after)}


def scene_row(scene: Scene) -> dict[str, Any]:
    """A scene as JSON."""
    things = [{"id": t.id, "color": t.color, "shape": t.shape, "place": PLACES[t.cell]} for t in scene.things]
    sign = {**asdict(scene.sign), "place": PLACES[scene.sign.cell]} if scene.sign else None
    if sign:
        del sign["cell"]
    return {"things": things, "sign": sign, "dim": scene.dim}
