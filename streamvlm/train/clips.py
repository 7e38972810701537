"""Training pictures: stories rendered to H.264, decoded, resized, labelled, and kept on disk."""

from __future__ import annotations

import logging
import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamvlm.train.architecture import FRAME_SIDE, GRID
from streamvlm.train.augment import drifting
from streamvlm.vision import resize
from streamvlm.world.paint import SIGN_SIZE, Painter, camera_offset, sprites_at
from streamvlm.world.scene import CANVAS, COLORS, SHAPES, WORDS, Scene, Sign, cell_center
from streamvlm.world.story import Pace, Story
from streamvlm.world.video import VideoSpec, encode

log = logging.getLogger(__name__)

# Colour, shape, tens, ones, word; 0 is nothing.
LABEL_SIZES = (len(COLORS) + 1, len(SHAPES) + 1, 12, 11, len(WORDS) + 1)
_COVER = 0.12  # share of a token's area from which a thing counts as covering it
_WORTH_A_POOL = 16  # clips; starting workers takes as long as rendering these
PACES = {"cuts": Pace(quiet=(0.5, 0.5), cut=1.0), "slow": Pace()}


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """A run of clips with consecutive seeds."""

    kind: str  # cuts: a new scene in every frame; slow: an ordinary story
    first_seed: int
    clips: int
    frames: int  # per clip
    fps: int  # of the video and of the samples
    unsteady: float = 0.0  # share of clips with a swaying camera, and of clips with swelling light

    def __post_init__(self) -> None:
        if self.kind not in PACES:
            raise ValueError(f"unknown kind of clip {self.kind!r}; kinds are {list(PACES)}")

    @property
    def name(self) -> str:
        """Its file's stem: everything the content depends on."""
        return f"{self.kind}-{self.first_seed}-{self.clips}x{self.frames}@{self.fps}"


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Rendered clips and the stories behind them."""

    spec: ClipSpec
    frames: Tensor  # uint8 [clips, frames, 3, side, side]
    labels: Tensor  # uint8 [clips, frames, tokens, 5] what each merged token covers
    stories: list[Story]

    def scene(self, clip: int, frame: int) -> Scene | None:
        """The truth of a frame; None while it is changing."""
        return self.stories[clip].scene_at(frame / self.spec.fps)


def load_clips(spec: ClipSpec, cache: Path) -> Clips:
    """Rendered clips, from `cache` when they are there."""
    path = cache / f"{spec.name}.pt"
    if not path.exists():
        log.info("rendering %s", path)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(_render_all(spec), path)
    frames, labels = torch.load(path)
    if spec.unsteady:
        rng = random.Random(spec.first_seed)
        frames = torch.stack([drifting(clip, spec.fps, rng, spec.unsteady) for clip in frames])
    return Clips(spec, frames, labels, [_story(spec, clip) for clip in range(spec.clips)])


def _story(spec: ClipSpec, clip: int) -> Story:
    return Story(spec.first_seed + clip, PACES[spec.kind], looks="seen")


def _render_all(spec: ClipSpec) -> tuple[Tensor, Tensor]:
    render = partial(render_clip, spec)
    if spec.clips < _WORTH_A_POOL:
        parts = [render(clip) for clip in range(spec.clips)]
    else:  # spawned, not forked: torch's thread pool does not survive a fork
        workers, context = os.cpu_count() or 1, get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            parts = list(pool.map(render, range(spec.clips), chunksize=8))
    return (
        torch.from_numpy(np.stack([frames for frames, _ in parts])),
        torch.from_numpy(np.stack([labels for _, labels in parts])),
    )


def render_clip(spec: ClipSpec, clip: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames [n, 3, side, side] as read back from H.264, and their labels [n, tokens, 5]."""
    story, painter = _story(spec, clip), Painter()
    times = [index / spec.fps for index in range(spec.frames)]
    quality = random.Random(story.seed).randint(16, 28)
    file = BytesIO()
    encode((painter.frame(story, t) for t in times), file, VideoSpec(spec.fps, CANVAS, quality))
    file.seek(0)
    with av.open(file) as container:
        pictures = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert len(pictures) == len(times)
    small = resize(torch.from_numpy(pictures).permute(0, 3, 1, 2), (FRAME_SIDE, FRAME_SIDE))
    return small.numpy(), np.stack([token_labels(story, t) for t in times])


def token_labels(story: Story, time: float) -> NDArray[np.uint8]:
    """uint8 [tokens, 5]: colour and shape of what covers most of each merged token, and what a sign there shows."""
    sprites, scene = sprites_at(story, time)
    labels = np.zeros((GRID[0] * GRID[1], len(LABEL_SIZES)), np.uint8)
    best = np.full(len(labels), _COVER)
    dx, dy = camera_offset(story, time)
    for sprite in sprites:
        cover = _cover(sprite.x + dx, sprite.y + dy, sprite.size, sprite.size)
        won = cover > best
        best[won] = cover[won]
        labels[won, 0] = list(COLORS).index(sprite.thing.color) + 1
        labels[won, 1] = SHAPES.index(sprite.thing.shape) + 1
    if scene.sign is not None:
        x, y = cell_center(scene.sign.cell)
        labels[_cover(x + dx, y + dy, *SIGN_SIZE) > _COVER, 2:] = _sign_labels(scene.sign)
    return labels


def _sign_labels(sign: Sign) -> tuple[int, int, int]:
    if sign.text in WORDS:
        return 0, 0, WORDS.index(sign.text) + 1
    tens, ones = divmod(int(sign.text), 10)
    return (tens + 2 if tens else 1), ones + 1, 0


def _cover(x: float, y: float, width: float, height: float) -> NDArray[np.float64]:
    """Share [tokens] of each merged token's area that a box around (x, y) covers."""

    def overlap(middle: float, size: float, cells: int) -> NDArray[np.float64]:
        step = CANVAS / cells
        edges = np.arange(cells) * step
        inside = np.minimum(edges + step, middle + size / 2) - np.maximum(edges, middle - size / 2)
        share: NDArray[np.float64] = np.clip(inside / step, 0, None)
        return share

    return np.outer(overlap(y, height, GRID[0]), overlap(x, width, GRID[1])).ravel()
