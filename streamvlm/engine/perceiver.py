"""Perceiver: a stream's eyes. Reads frames and runs the vision tower ahead of the engine, on threads of its own.

source -> [ingest thread] -> frame queue -> [encode thread] -> block queue -> engine
                                               |
                              the tower, shared by the streams of a model
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from streamvlm.engine.planning import due
from streamvlm.engine.ration import Choice
from streamvlm.engine.rationing import Rationing
from streamvlm.engine.signal import HandOver
from streamvlm.engine.tower import Glimpse, Tower, compute_clock
from streamvlm.errors import ModelError, SourceError, StreamClosed, StreamVLMError
from streamvlm.pruning.economy import Economy
from streamvlm.pruning.protocols import Patch
from streamvlm.pruning.savings import NOTHING_SAVED, Savings
from streamvlm.types import Frame, VisionTokens

logger = logging.getLogger(__name__)

BLOCKS_AHEAD = 2  # encoded blocks that may wait for the engine
JOIN_SECONDS = 15.0  # longer than a source's read timeout


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One temporal patch, encoded, and what the engine must know about its frames."""

    tokens: VisionTokens  # none where pruning found nothing new
    frames: int  # real ones; a lone last frame is shown twice to fill a two-frame patch
    last_pts: float  # seconds; the patch may be seen from this moment on
    captured: float | None  # time.monotonic() of its oldest frame; None for an unpaced file
    gap: float  # seconds the source lost before it
    dropped: tuple[float, ...]  # presentation times of frames pushed out before it
    saved: Savings = NOTHING_SAVED
    encode_seconds: float = 0.0  # of computing, pruning included
    chosen: Choice | None = None  # what the budget chose, where it chose otherwise than for the block before
    batch: int = 0  # patches that were in its call of the shared tower; 0: it needed none


class Perceiver:
    """Turns a source into blocks. `paced` sources never wait: the newest frame pushes the oldest out."""

    def __init__(
        self,
        source: Iterable[Frame],
        tower: Tower,
        *,
        paced: bool,
        queue_frames: int,
        on_block: Callable[[], None],
        economy: Economy | None = None,
    ) -> None:
        self._per_block = tower.model.pixels.advance
        self._most = math.ceil(queue_frames / self._per_block)  # patches that may wait to be encoded
        self.blocks: HandOver[Block] = HandOver(BLOCKS_AHEAD if paced else max(BLOCKS_AHEAD, self._most))
        self._source = source
        self._tower = tower
        self._model = tower.model
        self._viewer = tower.enter(paced=paced)
        self._paced = paced
        self._on_block = on_block
        self._economy = economy
        self.rationing: Rationing | None = None  # None: every frame is shown as it is; set before `start`
        self._size: tuple[int, int] | None = None  # of the latest frame
        self._shared: list[Tensor] = []  # what the next patch has in common with the latest one
        self.told: list[Callable[[Sequence[Frame], VisionTokens], None]] = []  # of each patch, once it is encoded
        self._frames: HandOver[Frame] = HandOver(max(queue_frames, self._per_block), _pts)
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._ingest, name="streamvlm-ingest", daemon=True),
            threading.Thread(target=self._encode, name="streamvlm-encode", daemon=True),
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have both threads end; frames not yet perceived are forgotten. Does not wait for them."""
        self._stopping = True
        self._tower.leave(self._viewer)
        self._frames.abandon()
        self.blocks.abandon()
        if not isinstance(self._source, Generator):  # only its own thread may close that
            self._close_source()

    def drop(self, pts: float) -> None:
        """A frame of the source was left out before it came here; told with the next block."""
        self._frames.drop(pts)

    def show(self, source: Iterable[Frame]) -> None:
        """Read this instead; before `start`."""
        self._source = source

    def join(self) -> None:
        """Wait until both threads have ended, at most for the time a source may block."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _ingest(self) -> None:
        error: Exception | None = None
        put = self._frames.put_newest if self._paced else self._frames.put
        try:
            for frame in self._source:
                if not isinstance(frame, Frame):
                    raise TypeError(f"a source yields Frame, not {type(frame).__name__}")
                if not put(frame):
                    break
        except StreamVLMError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - a caller's own iterable may raise anything, and it must be told
            error = SourceError(str(getattr(self._source, "uri", "source")), repr(problem))
        finally:
            self._frames.close(None if self._stopping else error)
            if isinstance(self._source, Generator):
                self._close_source()

    def _close_source(self) -> None:
        try:
            getattr(self._source, "close", lambda: None)()
        except Exception:  # a caller's own `close` may raise anything, and must not end the engine
            logger.exception("the source cannot be closed")

    def _encode(self) -> None:
        error: Exception | None = None
        try:
            with _side_stream(self._model.device):
                self._encode_all()
        except StreamClosed:
            logger.debug("stopped while a frame waited for the tower")
        except Exception as problem:  # noqa: BLE001 - out of memory, a frame no model can take: never a silent end
            error = ModelError(f"a frame cannot be encoded: {problem}")
        finally:
            self._tower.leave(self._viewer)
            self.blocks.close(error or self._frames.error)
            self._on_block()

    def _encode_all(self) -> None:
        waiting: list[Frame] = []
        lost: list[float] = []
        while True:
            frames, dropped = self._frames.take(self._ahead() * self._per_block - len(waiting))
            lost += dropped
            waiting += frames if self.rationing is None else self.rationing.taken(frames)
            patches = _in_patches(waiting, self._per_block)
            waiting = patches.pop() if frames and patches and len(patches[-1]) < self._per_block else []
            if not patches and not frames:
                return
            for _, alike in groupby(patches, key=lambda patch: patch[0].size):
                if not self._put(list(alike), tuple(lost)):
                    return
                lost = []

    def _ahead(self) -> int:
        """Patches that are encoded together if so many wait: no more than fit in one call, for what is taken cannot be
        pushed out any more by something newer."""
        in_turn = self.rationing is not None or (self._economy is not None and self._economy.in_turn)
        if self._size is None or in_turn:  # how the next one is seen depends on this one
            return 1
        rows, columns = self._model.token_grid(*self._size)
        room = BLOCKS_AHEAD - len(self.blocks) if self._paced else self._most
        return self._tower.fitting(rows * columns, max(1, min(room, self._most)))

    def _put(self, patches: list[list[Frame]], lost: tuple[float, ...]) -> bool:
        """Encode blocks of one size; False if nobody wants them any more."""
        clock = compute_clock(self._model)
        begun = clock()
        shown = [self._patch(frames, cut=i == 0 and bool(lost)) for i, frames in enumerate(patches)]
        glimpse = Glimpse(self._tower, self._viewer, shown, _due(patches[0]))
        for frames, patch in zip(patches, shown, strict=True):
            tokens, saved = self._see(patch, glimpse)
            if self._model.device.type == "cuda":
                torch.cuda.current_stream().synchronize()  # the engine's stream must find it complete
            for tell in self.told if len(tokens) else ():
                tell(frames, tokens)
            others, batch = glimpse.settle()
            about = (len(frames), frames[-1].pts, frames[0].captured, frames[0].gap, lost, saved)
            chosen = None if self.rationing is None else self.rationing.changed
            ok = self.blocks.put(Block(tokens, *about, clock() - begun + others, chosen, batch))
            self._on_block()
            if not ok:
                return False
            begun, lost = clock(), ()
        return True

    def _patch(self, frames: list[Frame], *, cut: bool) -> Patch:
        """The pixels of a block; `cut` if something was lost before it."""
        first = frames[0]
        cut = cut or first.gap > 0 or first.size != self._size
        pixels = self._pixels(frames)
        if self.rationing is not None:
            pixels = self.rationing.shown(pixels, first.pts)
            cut = cut or self.rationing.resized
        self._size, grid = first.size, self._model.token_grid(*pixels.shape[2:])
        return Patch(pixels, grid, first.pts, sum(f.duration for f in frames), cut, self._model.pixels.overlap)

    def _see(self, patch: Patch, glimpse: Glimpse) -> tuple[VisionTokens, Savings]:
        """What is kept of a patch."""
        if self._economy is None:
            tokens, saved = glimpse(patch), NOTHING_SAVED
        else:
            seen = self._economy.see(patch, glimpse)
            tokens, saved = seen.tokens, seen.saved
        if self.rationing is not None:
            self.rationing.spent(tokens, patch.duration)
        return tokens, saved

    def _pixels(self, frames: list[Frame]) -> Tensor:
        """uint8 [t, 3, H, W] of a patch: what it shares with the one before, then its own frames.

        Where nothing came before, its first frame stands in; where the stream ends, its last one.
        """
        spec, own = self._model.pixels, [f.data for f in frames]
        own += [own[-1]] * (spec.advance - len(own))
        follows = frames[0].size == self._size and not frames[0].gap
        shared = self._shared if follows else [own[0]] * spec.overlap
        patch = [*shared, *own]
        self._shared = patch[len(patch) - spec.overlap :]
        return torch.stack(patch)


def _pts(frame: Frame) -> float:
    return frame.pts


def _due(frames: list[Frame]) -> float:
    """When a patch should have been perceived; inf of a file, which nobody waits for."""
    first, last = frames[0], frames[-1]
    if first.captured is None:
        return math.inf
    return due(first.captured + last.pts - first.pts, sum(f.duration for f in frames))


def _in_patches(frames: list[Frame], most: int) -> list[list[Frame]]:
    """Cut into those that share a patch: at most so many, of one size, with nothing lost between them."""
    patches = [frames[:1]] if frames else []
    for before, after in pairwise(frames):
        if after.size != before.size or after.gap > 0 or len(patches[-1]) == most:
            patches.append([])
        patches[-1].append(after)
    return patches


def _side_stream(device: torch.device) -> torch.cuda.StreamContext:
    """On CUDA a stream of its own, so that encoding overlaps the step; elsewhere nothing."""
    own = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    return torch.cuda.stream(own)
