"""Looks: what is remembered of a frame besides its keys and values, until it leaves the window and is stored."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from streamvlm.types import Frame, VisionTokens

LIMIT = 16 << 10  # bytes of one picture
ON_THEIR_WAY = 128  # pictures that have left but may not be on disk yet: the disk is told once a second
QUALITIES = (75, 40, 10)  # JPEG; the next one where the picture is larger than that


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One temporal patch as people and embeddings see it."""

    picture: bytes  # JPEG, at most LIMIT bytes; empty if none is kept
    embedding: Tensor | None  # float32 [dim]; None if nobody asked for it


def small_picture(pixels: Tensor, side: int) -> bytes:
    """A JPEG of uint8 [3, H, W] whose longer side is at most `side` pixels; empty if `side` is 0."""
    if side == 0:
        return b""
    planes = pixels.cpu().contiguous().numpy()
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # faster than making numpy interleave them
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= LIMIT:
            return file.getvalue()
    return b""


def picture_pixels(picture: bytes) -> Tensor | None:
    """Pixels uint8 [3, H, W] of a picture that `small_picture` made; None if there is none."""
    if not picture:
        return None
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Looks:
    """The looks of what is in the window or on its way there. The encode thread adds, the engine's thread takes."""

    def __init__(
        self, side: int, *, lasting: int, embed: Callable[[Sequence[Frame], VisionTokens], Tensor | None] | None = None
    ) -> None:
        """`side`: pixels of a picture. The first `lasting` frames stay: they are sinks."""
        self._side = side
        self._lasting = lasting
        self._embed = embed
        self._lock = threading.Lock()
        self._found: dict[float, Look] = {}  # by the patch's first moment, in order of time
        self._left: deque[tuple[float, bytes]] = deque(maxlen=ON_THEIR_WAY)

    def note(self, frames: Sequence[Frame], tokens: VisionTokens) -> None:
        """A patch has been encoded."""
        embedding = None if self._embed is None else self._embed(frames, tokens)
        look = Look(small_picture(frames[-1].data, self._side), embedding)
        with self._lock:
            self._found[tokens.pts] = look

    def take(self, start: float) -> Look:
        """The look of the patch at `start` seconds, which leaves. Older ones go too: they will not be asked for."""
        with self._lock:
            found = self._found.get(start) or Look(b"", None)
            gone = [pts for pts in list(self._found)[self._lasting :] if pts <= start]
            self._left.extend((pts, self._found.pop(pts).picture) for pts in gone)
        return found

    def pictures(self, spans: Sequence[tuple[float, float]]) -> list[tuple[float, bytes]]:
        """(seconds, picture) of every patch within `spans`, in order of time."""
        with self._lock:
            held = list(self._found.items())
        return [(pts, look.picture) for pts, look in held if any(a <= pts < b for a, b in spans)]

    def at(self, time: float) -> tuple[float, bytes] | None:
        """(seconds, picture) of the newest patch that began by `time`, else of the first, among those that have one."""
        with self._lock:
            held = [*self._left, *((pts, look.picture) for pts, look in self._found.items())]
        return newest_by(time, [one for one in held if one[1]])


def newest_by(time: float, pictures: Sequence[tuple[float, bytes]]) -> tuple[float, bytes] | None:
    """The newest that is not later than `time`, else the first; None of none."""
    return max((one for one in pictures if one[0] <= time), default=min(pictures, default=None))
