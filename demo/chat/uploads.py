"""Uploads: a visitor's video, looked at before it is believed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from streamvlm import SourceError, open_source
from streamvlm.demo.chat.clock import clock
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Refused


async def receive(parts: AsyncIterator[bytes], to: Path, limits: Limits) -> None:
    """Write what comes to a new file of our own naming.

    Raises:
        Refused: it is larger than allowed; nothing is left behind.
    """
    size = 0
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async for part in parts:
                size += len(part)
                check_size(size, limits)
                file.write(part)
    except BaseException:
        to.unlink(missing_ok=True)
        raise


def check_size(size: int, limits: Limits) -> None:
    """Raise Refused when an upload of `size` bytes is too large."""
    if size > limits.upload_bytes:
        raise Refused(f"The file is larger than the {limits.upload_mb:g} MB that are allowed.")


def inspect(path: Path, limits: Limits) -> None:
    """Open what was uploaded, see that it is a video within the limits, else delete it.

    Playlists are refused by the source itself: they could make the decoder read files of this machine.

    Raises:
        Refused: it is no video, too long, or its pictures are too large.
    """
    try:
        _inspect(path, limits)
    except SourceError as error:
        path.unlink(missing_ok=True)
        raise Refused(f"This file cannot be watched: {error.cause}.") from None
    except Refused:
        path.unlink(missing_ok=True)
        raise


def _inspect(path: Path, limits: Limits) -> None:
    with open_source(path, fps=1.0) as source:
        if source.duration is not None and source.duration > limits.upload_seconds:
            raise Refused(f"The video is longer than the {clock(limits.upload_seconds)} that are allowed.")
        first = next(source, None)
        if first is None:
            raise Refused("The video has no pictures.")
        height, width = first.size
        if height * width > limits.pixels:
            raise Refused(f"The video has {width} x {height} pixels; {limits.pixels} are allowed.")
