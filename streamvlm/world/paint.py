"""Draw a story: where everything is at a time, and the picture of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from streamvlm.world.scene import CANVAS, CELL, DIM, Backdrop, Scene, Sign, Thing, cell_center
from streamvlm.world.story import Event, Story

_FINE = 4  # shapes are drawn this much larger and reduced: anti-aliasing
SIGN_SIZE = (62, 46)  # pixels, width and height
SHAKE = 9  # pixels that a shaking camera is off


@dataclass(frozen=True, slots=True)
class Sprite:
    """A thing as drawn in one frame."""

    thing: Thing
    x: float  # pixels, middle
    y: float
    size: float  # pixels


def sprites_at(story: Story, time: float) -> tuple[list[Sprite], Scene]:
    """What to draw at `time`, and the scene that gives the sign and the backdrop."""
    event = story.event_at(time)
    if time >= event.stop or event.thing is None:
        scene = event.after if time >= event.stop else event.before
        return [_sprite(thing, time) for thing in scene.things], scene
    done = (time - event.start) / (event.stop - event.start)
    still = [_sprite(t, time) for t in event.before.things if t.id != event.thing]
    return [*still, *_changing(event, time, done)], event.before


def camera_offset(story: Story, time: float) -> tuple[int, int]:
    """(x, y) pixels that the whole picture is displaced at `time`: not at all unless the camera shakes."""
    event = story.event_at(time)
    if event.kind != "shake" or time >= event.stop:
        return 0, 0
    turn = 17 * (time - event.start)
    return round(SHAKE * math.cos(turn)), round(SHAKE * math.sin(turn))


def _sprite(thing: Thing, time: float) -> Sprite:
    x, y = cell_center(thing.cell)
    x += thing.offset[0] + 2 * math.sin(time * 1.3 + thing.sway)
    y += thing.offset[1] + 2 * math.cos(time * 1.1 + thing.sway)
    return Sprite(thing, x, y, thing.size)


def _changing(event: Event, time: float, done: float) -> list[Sprite]:
    """The thing that an event happens to: none while it blinks."""
    old = next((t for t in event.before.things if t.id == event.thing), None)
    new = next((t for t in event.after.things if t.id == event.thing), None)
    if event.kind == "blink":
        return []
    if event.kind == "hit":
        struck = next(t for t in event.before.things if t.id == event.other)
        assert old is not None
        return [_striking(_sprite(old, time), _sprite(struck, time), 1 - abs(2 * done - 1))]
    if old is not None and new is not None:
        ease = done * done * (3 - 2 * done)
        return [_towards(_sprite(old, time), _sprite(new, time), ease)]
    here = new or old
    assert here is not None
    away = 1 - done if old is None else done
    return [_off_stage(_sprite(here, time), away)]


def _towards(a: Sprite, b: Sprite, share: float) -> Sprite:
    return Sprite(b.thing, a.x + (b.x - a.x) * share, a.y + (b.y - a.y) * share, a.size)


def _striking(sprite: Sprite, struck: Sprite, done: float) -> Sprite:
    """`sprite` on its way to `struck`; at 1 they touch, at 0 it is at home."""
    far = math.hypot(struck.x - sprite.x, struck.y - sprite.y)
    touch = max(0.0, 1 - 0.42 * (sprite.size + struck.size) / far)
    moved = _towards(sprite, struck, touch * done)
    return Sprite(sprite.thing, moved.x, moved.y, sprite.size)


def _off_stage(sprite: Sprite, away: float) -> Sprite:
    """A thing `away` (0..1) towards being gone: over the nearest edge, or shrunk when it is in the middle."""
    row, column = divmod(sprite.thing.cell, 3)
    if (row, column) == (1, 1):
        return Sprite(sprite.thing, sprite.x, sprite.y, sprite.size * (1 - away))
    step = CELL * away
    if column != 1:
        return Sprite(sprite.thing, sprite.x + (column - 1) * step, sprite.y, sprite.size)
    return Sprite(sprite.thing, sprite.x, sprite.y + (row - 1) * step, sprite.size)


def _outline(shape: str, side: int) -> list[tuple[float, float]]:
    """Corners of a shape in a box of `side` pixels."""
    unit: dict[str, list[tuple[float, float]]] = {
        "square": [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)],
        "triangle": [(0.5, 0.02), (1.0, 0.96), (0.0, 0.96)],
        "diamond": [(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)],
        "cross": [
            (0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67),
            (0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33),
        ],
        "star": [
            (0.5 + r * math.sin(k * math.pi / 5), 0.53 - r * math.cos(k * math.pi / 5))
            for k, r in enumerate([0.53, 0.22] * 5)
        ],
    }  # fmt: skip
    return [(x * (side - 1), y * (side - 1)) for x, y in unit[shape]]


class Painter:
    """Draws frames; keeps the masks it has already cut out."""

    def __init__(self) -> None:
        self._masks: dict[tuple[str, int], Image.Image] = {}
        self._plates: dict[str, Image.Image] = {}
        self._backdrops: dict[Backdrop, Image.Image] = {}
        self._font = ImageFont.load_default(size=42)
        self._small = ImageFont.load_default(size=26)  # the longest word just fits

    def frame(self, story: Story, time: float) -> NDArray[np.uint8]:
        """uint8 [CANVAS, CANVAS, 3], the picture at `time` seconds."""
        sprites, scene = sprites_at(story, time)
        image = self._backdrop(scene.backdrop).copy()
        if scene.sign is not None:
            self._hang(image, scene.sign)
        for sprite in sprites:
            mask = self._mask(sprite.thing.shape, max(1, round(sprite.size)))
            corner = (round(sprite.x - mask.width / 2), round(sprite.y - mask.height / 2))
            image.paste(sprite.thing.tint, (*corner, corner[0] + mask.width, corner[1] + mask.height), mask)
        return self._exposed(np.asarray(image), story, scene, time)

    def _exposed(self, picture: NDArray[np.uint8], story: Story, scene: Scene, time: float) -> NDArray[np.uint8]:
        """What the camera makes of it: shaken, dimmed, with its noise."""
        dx, dy = camera_offset(story, time)
        if dx or dy:
            picture = np.roll(picture, (dy, dx), (0, 1))
        if not scene.dim and not story.noise:
            return picture
        seen = picture.astype(np.float32) * (DIM if scene.dim else 1.0)
        if story.noise:
            rng = np.random.default_rng((story.seed, round(time * 1000)))
            grain = rng.standard_normal((CANVAS, CANVAS, 1), np.float32)
            seen += story.noise * grain
        return seen.round().clip(0, 255).astype(np.uint8)

    def _mask(self, shape: str, size: int) -> Image.Image:
        if (shape, size) not in self._masks:
            side = size * _FINE
            big = Image.new("L", (side, side))
            if shape == "circle":
                ImageDraw.Draw(big).ellipse((0, 0, side - 1, side - 1), fill=255)
            else:
                ImageDraw.Draw(big).polygon(_outline(shape, side), fill=255)
            self._masks[shape, size] = big.reduce(_FINE)
        return self._masks[shape, size]

    def _hang(self, image: Image.Image, sign: Sign) -> None:
        if sign.text not in self._plates:
            plate = Image.new("RGB", SIGN_SIZE, (20, 20, 20))
            pen = ImageDraw.Draw(plate)
            pen.rectangle((3, 3, SIGN_SIZE[0] - 4, SIGN_SIZE[1] - 4), fill=(232, 232, 220))
            middle = (SIGN_SIZE[0] / 2, SIGN_SIZE[1] / 2)
            font = self._font if sign.text.isdecimal() else self._small
            pen.text(middle, sign.text, fill=(15, 15, 15), font=font, anchor="mm")
            self._plates[sign.text] = plate
        x, y = cell_center(sign.cell)
        image.paste(self._plates[sign.text], (round(x - SIGN_SIZE[0] / 2), round(y - SIGN_SIZE[1] / 2)))

    def _backdrop(self, backdrop: Backdrop) -> Image.Image:
        if backdrop not in self._backdrops:
            ramp = np.linspace(0, 1, CANVAS)[:, None, None]
            tones = np.array(backdrop.first) * (1 - ramp) + np.array(backdrop.last) * ramp
            pixels = np.broadcast_to(tones, (CANVAS, CANVAS, 3)).round().astype(np.uint8)
            if not backdrop.vertical:
                pixels = pixels.transpose(1, 0, 2)
            self._backdrops.clear()
            self._backdrops[backdrop] = Image.fromarray(np.ascontiguousarray(pixels))
        return self._backdrops[backdrop]
