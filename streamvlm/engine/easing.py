"""Easing: a live source that shows less while its stream is under pressure, and counts what it leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from streamvlm.engine.ladder import Rung
from streamvlm.types import Frame

SAME = 2.0  # levels of 255 by which two pictures may differ on average and be the same
SMALLEST = 112  # pixels; a side shorter than that after halving is not worth it
LOOK = 32  # pixels a side, of what pictures are compared by

Reason = Literal["duplicate", "fps"]


class Eased:
    """What is left of a live source's frames at the rung that `rung` says."""

    def __init__(self, source: Iterable[Frame], rung: Callable[[], Rung], on_drop: Callable[[float], None]) -> None:
        self.left_out: Counter[Reason] = Counter()
        self.halved = 0  # frames shown at half their size
        self.uri = str(getattr(source, "uri", "source"))
        self._source = source
        self._rung = rung
        self._on_drop = on_drop  # told the presentation time of each frame left out
        self._last: Tensor | None = None  # float32 [3, LOOK, LOOK] of the newest frame shown
        self._skipped = False  # whether the one before was left out for the frame rate

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self) -> Generator[Frame, None, None]:
        """The frames that are shown; closes the source if it is a generator."""
        try:
            for frame in self._source:
                reason = self._reason(frame, self._rung()) if isinstance(frame, Frame) else None
                if reason is None:
                    yield self._smaller(frame)
                else:
                    self.left_out[reason] += 1
                    self._on_drop(frame.pts)
        finally:
            if isinstance(self._source, Generator):
                self._source.close()

    def close(self) -> None:
        """Close the source."""
        getattr(self._source, "close", lambda: None)()

    def _reason(self, frame: Frame, rung: Rung) -> Reason | None:
        """Why a frame is left out, if it is."""
        if rung < Rung.NO_DUPLICATES:
            self._last = None
            return None
        look = _look(frame.data)
        same = self._last is not None and float((look - self._last).abs().mean()) < SAME
        if same:
            return "duplicate"
        self._skipped = rung >= Rung.LOW_FPS and not self._skipped
        if self._skipped:
            return "fps"
        self._last = look
        return None

    def _smaller(self, frame: Frame) -> Frame:
        if not isinstance(frame, Frame) or self._rung() < Rung.LOW_RESOLUTION or min(frame.size) < 2 * SMALLEST:
            return frame
        self.halved += 1
        return replace(frame, data=avg_pool2d(frame.data.float(), 2).round().to(torch.uint8))


def _look(picture: Tensor) -> Tensor:
    rows, columns = (max(1, side // LOOK) for side in picture.shape[1:])
    return picture[:, ::rows, ::columns].float()


def eased(source: Iterable[Frame], easing: Eased) -> Iterable[Frame]:
    """`easing` as what its source is: a generator may only be closed by the thread that runs it, so it stays one."""
    return easing.frames() if isinstance(source, Generator) else easing
