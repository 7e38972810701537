"""Tower: the vision tower of one model as all its streams share it. What waits for it at the same moment is encoded in
one call.

It has no thread of its own: of those that wait, the one that finds the tower free runs the next batch for all, so a
frame that waits alone is encoded at once, where it is, and is a batch of one. Nobody waits for company.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from streamvlm.engine.costs import CostModel
from streamvlm.engine.planning import LONGEST_STEP, Account, Bid, Planner, Sort, longest_step
from streamvlm.errors import ModelError, StreamClosed
from streamvlm.models.base import VisionLanguageModel
from streamvlm.pruning.protocols import Patch
from streamvlm.types import VisionTokens

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Viewer:
    """One stream at the tower."""

    paced: bool  # it runs by the clock; a file can wait
    account: Account = field(default_factory=Account)
    interval: float = math.inf  # seconds between two of its patches, once there was one
    gone: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A patch that is through the tower."""

    tokens: VisionTokens
    seconds: float  # its part of what the call took, by its share of the tokens
    batch: int  # patches in the call


@dataclass(frozen=True, slots=True)
class TowerStats:
    """What the tower did for all streams so far. Streams that reuse features have towers of their own."""

    calls: int = 0
    patches: int = 0  # encoded in them
    largest: int = 0  # patches of one call
    retried: int = 0  # calls that failed and whose patches were then encoded one by one

    @property
    def per_call(self) -> float:
        """Patches of a call on average; 0 before the first."""
        return self.patches / self.calls if self.calls else 0.0


@dataclass(slots=True, eq=False)
class _Request:
    viewer: Viewer
    patch: Patch
    deadline: float  # seconds of the tower's clock; inf where nobody waits
    outcome: Encoded | Exception | None = None  # None: not yet


class Tower:
    """Encodes patches for streams, each on its own thread.

    A batch is planned as a step is: by what it should cost, never more than a part of the shortest interval of a live
    stream, and what is due first goes first. So a frame waits for the batch at hand and is in the next.

    Args:
        clock: seconds that never go back, the same as of the frames' `captured`.
        together: False makes every batch one patch.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        clock: Callable[[], float] = time.monotonic,
        costs: CostModel | None = None,
        together: bool = True,
    ) -> None:
        self.model = model
        self.costs = costs or CostModel()  # of a call: rows are tokens, and a row attends to its own patch
        self._clock = clock
        self._together = together
        self._planner: Planner[_Request] = Planner(self.costs)
        self._viewers: list[Viewer] = []
        self._waiting: list[_Request] = []
        self._busy = False
        self._stats = TowerStats()
        self._changed = threading.Condition()

    @property
    def stats(self) -> TowerStats:
        """Counters, all of one moment."""
        with self._changed:
            return self._stats

    @property
    def waiting(self) -> int:
        """Patches that wait for the next call."""
        with self._changed:
            return len(self._waiting)

    def enter(self, *, paced: bool) -> Viewer:
        """One more stream."""
        viewer = Viewer(paced)
        with self._changed:
            viewer.account.enter(v.account for v in self._viewers)
            self._viewers.append(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A stream wants nothing more: what of it waits is forgotten; a batch that has begun is finished."""
        with self._changed:
            viewer.gone = True
            self._viewers = [v for v in self._viewers if v is not viewer]
            for request in (r for r in self._waiting if r.viewer is viewer):
                request.outcome = StreamClosed("the stream was closed before its frame was encoded")
            self._waiting = [r for r in self._waiting if r.viewer is not viewer]
            self._changed.notify_all()

    def fitting(self, tokens: int, most: int) -> int:
        """How many of `most` patches with so many tokens may share a call, 1 at least."""
        if not self._together:
            return 1
        with self._changed:
            planner: Planner[int] = Planner(self.costs)
            bids = [Bid(i, Sort.FRAME, tokens, tokens) for i in range(most)]
            return len(planner.plan(bids, self._longest, self._clock()))

    def encode(self, viewer: Viewer, patches: Sequence[Patch], due: float = math.inf) -> list[Encoded | Exception]:
        """What becomes of each patch; waits for it. `due` is when the first should have been perceived."""
        mine = [_Request(viewer, p, due + p.pts - patches[0].pts) for p in patches]
        if any(p.frames.is_cuda for p in patches):
            torch.cuda.current_stream(self.model.device).synchronize()  # another thread's stream may read them
        with self._changed:
            viewer.interval = patches[0].duration
            if viewer.gone:
                return [StreamClosed("the stream is closed")] * len(mine)
            self._waiting += mine
        while batch := self._next(mine):
            self._run(batch)
        return [self._received(request) for request in mine]

    @property
    def _longest(self) -> float:
        """Seconds that a call should take at most."""
        return min(LONGEST_STEP, longest_step([v.interval for v in self._viewers if v.paced]))

    def _next(self, mine: Sequence[_Request]) -> list[_Request]:
        """What this thread is to encode now, for whomever; nothing once all of `mine` are through."""

        def through() -> bool:
            return all(r.outcome is not None for r in mine)

        with self._changed:
            self._changed.wait_for(lambda: not self._busy or through())
            if through():
                return []
            bids = [Bid(r, Sort.FRAME, n := r.patch.full, n, r.viewer.account, r.deadline) for r in self._waiting]
            grants = self._planner.plan(bids, self._longest, self._clock())
            batch = [g.bid.what for g in grants[: None if self._together else 1]]
            self._waiting = [r for r in self._waiting if r not in batch]
            self._busy = True
            return batch

    def _run(self, batch: list[_Request]) -> None:
        outcomes: Sequence[Encoded | Exception] = [ModelError("the vision tower gave nothing")] * len(batch)
        try:
            outcomes = self._outcomes(batch)
        finally:  # whatever happened, nobody may wait for ever
            with self._changed:
                for request, outcome in zip(batch, outcomes, strict=True):
                    request.outcome = outcome
                self._busy = False
                self._changed.notify_all()

    def _outcomes(self, batch: list[_Request]) -> list[Encoded | Exception]:
        """Of one call; where that fails, of one call each, so that nobody's frame is lost for another's."""
        clock, begun = compute_clock(self.model), self._clock()
        computing = clock()
        try:
            tokens = self._call([r.patch for r in batch])
        except Exception as problem:  # noqa: BLE001 - out of memory, a frame no model can take: its own stream is told
            if len(batch) == 1:
                return [problem]
            logger.warning("%d patches cannot be encoded together: %s", len(batch), problem)
            self._count(retried=1)
            return [outcome for request in batch for outcome in self._outcomes([request])]
        seconds, full = clock() - computing, [r.patch.full for r in batch]
        self._count(calls=1, patches=len(batch))
        with self._changed:
            self.costs.learn(sum(full), sum(n * n for n in full), self._clock() - begun)
        shares = [seconds * n / sum(full) for n in full]
        return [Encoded(t, share, len(batch)) for t, share in zip(tokens, shares, strict=True)]

    def _call(self, patches: Sequence[Patch]) -> list[VisionTokens]:
        tokens = self.model.encode_patches([p.frames for p in patches], [(p.pts, p.duration) for p in patches])
        if self.model.device.type == "cuda":
            torch.cuda.current_stream(self.model.device).synchronize()  # other threads' streams must find it complete
        return tokens

    def _count(self, *, calls: int = 0, patches: int = 0, retried: int = 0) -> None:
        with self._changed:
            old = self._stats
            largest = max(old.largest, patches)
            self._stats = replace(
                old,
                calls=old.calls + calls,
                patches=old.patches + patches,
                largest=largest,
                retried=old.retried + retried,
            )

    def _received(self, request: _Request) -> Encoded | Exception:
        """An outcome as this thread may use it: memory that another thread's CUDA stream made must not be used again
        by that one before this one is through with it."""
        assert request.outcome is not None
        if isinstance(request.outcome, Encoded) and self.model.device.type == "cuda":
            tokens, here = request.outcome.tokens, torch.cuda.current_stream(self.model.device)
            for tensor in (tokens.embeds, *tokens.deepstack):
                tensor.record_stream(here)
        return request.outcome


def compute_clock(model: VisionLanguageModel) -> Callable[[], float]:
    """Seconds of computing: on a CPU of the thread alone, for others share it."""
    return time.perf_counter if model.device.type == "cuda" else time.thread_time


class Glimpse:
    """Patches of one stream that may share a call: all are encoded when the first of them is asked for."""

    def __init__(self, tower: Tower, viewer: Viewer, patches: Sequence[Patch], due: float) -> None:
        self._tower = tower
        self._viewer = viewer
        self._patches = patches
        self._due = due
        self._found: list[Encoded | Exception] = []
        self._batch = 0
        self._seconds = 0.0

    def __call__(self, patch: Patch) -> VisionTokens:
        """Its tokens.

        Raises:
            Exception: whatever the tower or preprocessing did at this patch.
            StreamClosed: the stream left before it was encoded.
        """
        clock = compute_clock(self._tower.model)
        if not self._found:
            begun = clock()
            self._found = self._tower.encode(self._viewer, self._patches, self._due)
            self._seconds -= clock() - begun  # other streams' patches too, or none
        one = self._found[self._patches.index(patch)]
        if isinstance(one, Exception):
            raise one
        self._seconds += one.seconds
        self._batch = one.batch
        return one.tokens

    def settle(self) -> tuple[float, int]:
        """Since the last time: seconds to add to this thread's own for what was computed, and how many patches shared
        the call; 0 where there was none."""
        seconds, batch, self._seconds, self._batch = self._seconds, self._batch, 0.0, 0
        return seconds, batch
