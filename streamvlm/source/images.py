"""A folder of pictures as a video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from streamvlm.errors import SourceError
from streamvlm.source.address import IMAGE_SUFFIXES, Address
from streamvlm.source.base import Source
from streamvlm.source.options import SourceOptions
from streamvlm.source.pixels import to_tensor
from streamvlm.types import Frame


class ImageSource(Source):
    """The pictures of a folder in natural order (`2.png` before `10.png`), `fps` of them a second.

    One picture file is a folder of one. An unreadable picture costs its frame; time goes on.
    """

    def __init__(self, address: Address, fps: float | None, options: SourceOptions) -> None:
        self._step = 1.0 if fps is None else 1 / fps  # pictures have no time of their own
        self._max_broken = options.max_broken
        self._paths = _list_images(address)
        super().__init__(address.shown, duration=len(self._paths) * self._step)

    def _read(self) -> Iterator[Frame]:
        streak = seen = 0
        for number, path in enumerate(self._paths):
            picture = _load(path)
            if picture is None:
                self._count_broken()
                streak += 1
                if streak >= self._max_broken:
                    raise SourceError(self.uri, f"{streak} pictures in a row cannot be read; the last is {path.name}")
                continue
            streak, seen = 0, seen + 1
            yield Frame(picture, number * self._step, self._step)
        if not seen:
            raise SourceError(self.uri, f"none of its {len(self._paths)} pictures can be read")

    def _release(self) -> None:
        """Nothing is held between pictures."""


def natural_key(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts runs of digits by their value and the rest as text."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _list_images(address: Address) -> list[Path]:
    root = Path(address.url)
    if root.is_file():
        return [root]
    paths = sorted((p for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=natural_key)
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(address.shown, f"there are no pictures in this folder ({kinds})")
    return paths


def _load(path: Path) -> Tensor | None:
    """uint8 [3, H, W], turned upright; None when the file cannot be read."""
    try:
        with Image.open(path) as image:
            return to_tensor(np.array(ImageOps.exif_transpose(image).convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
