"""Frames of a story, lazily or as real H.264, and a rendered world as a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamvlm.world.paint import Painter
from streamvlm.world.questions import Question, questions_for
from streamvlm.world.scene import CANVAS, PLACES, Scene
from streamvlm.world.story import Event, Story

Picture = NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """How a story becomes a video."""

    fps: int = 12
    size: int = CANVAS  # pixels, side
    crf: int = 20  # x264 quality, lower is better

    def __post_init__(self) -> None:
        if self.fps < 1 or self.size < 16 or self.size % 2 or not 0 <= self.crf <= 51:
            raise ValueError(f"need fps >= 1, an even size >= 16 and crf in 0..51, got {self}")


def frames(story: Story, seconds: float, fps: float) -> Iterator[tuple[float, Picture]]:
    """(time in seconds, picture) at every 1/fps from 0, drawn as they are asked for."""
    painter = Painter()
    for index in range(round(seconds * fps)):
        yield index / fps, painter.frame(story, index / fps)


def encode(pictures: Iterable[Picture], to: str | BinaryIO, spec: VideoSpec) -> None:
    """Write H.264 in MP4; the bytes depend on nothing but the pictures."""
    with av.open(to, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=spec.fps)
        stream.width = stream.height = spec.size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # frame threads would change the rate control from run to run
        options = {"crf": str(spec.crf), "preset": "veryfast", "g": str(2 * spec.fps)}
        stream.options = {**options, "x264-params": "mbtree=0"}  # with it the bytes differ from run to run
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_sized(picture, spec.size), format="rgb24")))
        container.mux(stream.encode(None))


def _sized(picture: Picture, size: int) -> Picture:
    if picture.shape[0] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def render(seed: int, seconds: float, out: Path, spec: VideoSpec, questions: int = 0) -> None:
    """Write `video.mp4`, `qa.json` and `events.json` into `out`; a question every two seconds unless told."""
    story = Story(seed)
    asked = questions_for(story, seconds, questions or max(6, round(seconds / 2)))
    rows = [{"time": q.time, **_question_row(q.question)} for q in asked]
    out.mkdir(parents=True, exist_ok=True)
    (out / "qa.json").write_text(json.dumps(rows, indent=1) + "\n")
    log = {"seed": seed, "seconds": seconds, "fps": spec.fps, "size": spec.size}
    happened = [event_row(event) for event in story.until(seconds)]
    (out / "events.json").write_text(json.dumps({**log, "events": happened}, indent=1) + "\n")
    encode((picture for _, picture in frames(story, seconds, spec.fps)), str(out / "video.mp4"), spec)


def _question_row(question: Question) -> dict[str, str]:
    return {"question": question.text, "answer": question.answer, "task": question.task}


def event_row(event: Event) -> dict[str, Any]:
    """An event as JSON: what happened, when, and everything that is true afterwards."""
    row = {"kind": event.kind, "start": round(event.start, 3), "stop": round(event.stop, 3)}
    return {**row, "thing": event.thing, "scene": scene_row(event.after)}


def scene_row(scene: Scene) -> dict[str, Any]:
    """A scene as JSON."""
    things = [{"id": t.id, "color": t.color, "shape": t.shape, "place": PLACES[t.cell]} for t in scene.things]
    sign = {**asdict(scene.sign), "place": PLACES[scene.sign.cell]} if scene.sign else None
    if sign:
        del sign["cell"]
    return {"things": things, "sign": sign}
