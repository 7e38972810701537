"""The streams that pruning is judged on: a world seen by a static camera, by a moving one, and in changing light."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from streamvlm.world.story import Story
from streamvlm.world.video import Picture, VideoSpec, encode, frames

SWING = 6  # pixels, of a camera that moves
PERIODS = (12.0, 16.4)  # seconds, across and down
LIGHT = 0.5  # least brightness of a slow fade
FADE = 24.0  # seconds from bright to bright
SPEC = VideoSpec(fps=6)


def _static(picture: Picture, time: float) -> Picture:
    return picture


def _moving(picture: Picture, time: float) -> Picture:
    """The camera swings; what it sees beyond the edge is the edge."""
    x, y = (round(SWING * math.sin(2 * math.pi * time / period)) for period in PERIODS)
    wide = np.pad(picture, ((SWING, SWING), (SWING, SWING), (0, 0)), mode="edge")
    height, width = picture.shape[:2]
    return np.ascontiguousarray(wide[SWING + y : SWING + y + height, SWING + x : SWING + x + width])


def _fading(picture: Picture, time: float) -> Picture:
    light = LIGHT + (1 - LIGHT) * (0.5 + 0.5 * math.cos(2 * math.pi * time / FADE))
    dimmed: Picture = np.rint(picture * light).astype(np.uint8)
    return dimmed


CAMERAS: dict[str, Callable[[Picture, float], Picture]] = {"static": _static, "moving": _moving, "fading": _fading}


def film(seed: int, seconds: float, camera: str, to: Path) -> Path:
    """Write a world as H.264, seen by one of `CAMERAS`."""

    def seen() -> Iterator[Picture]:
        for time, picture in frames(Story(seed), seconds, SPEC.fps):
            yield CAMERAS[camera](picture, time)

    path = to / f"{seed}-{camera}.mp4"
    encode(seen(), str(path), SPEC)
    return path
