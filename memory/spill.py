"""Spiller: writes blocks to a store on a thread of its own. It may drop some, counted; it never makes a step wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from streamvlm.errors import StreamVLMError
from streamvlm.memory.blocks import KVBlock
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.pinned import PinnedCopy, PinnedRing
from streamvlm.memory.records import Encoded
from streamvlm.memory.store import BlockStore

log = logging.getLogger(__name__)
ERRORS = (StreamVLMError, OSError, ValueError, RuntimeError)  # what a store or a device may raise

OnStored = Callable[[Sequence[tuple[Entry, object]]], None]
"""Gets what has just been committed, each with the note it was offered with; runs on the spiller's thread."""


@dataclass(frozen=True, slots=True)
class SpillOptions:
    """How much may wait, and how long."""

    queue_bytes: int = 256 << 20
    commit_blocks: int = 64
    commit_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.queue_bytes < 1 or self.commit_blocks < 1 or self.commit_seconds <= 0:
            raise ValueError(f"all of these must be positive: {self}")


@dataclass(frozen=True, slots=True)
class SpillStats:
    """Every block offered is stored, dropped or pending, and so is each of its tokens."""

    offered_blocks: int = 0
    offered_tokens: int = 0
    stored_blocks: int = 0  # committed
    stored_tokens: int = 0
    dropped_blocks: int = 0  # the queue or the disk was full, or writing failed
    dropped_tokens: int = 0
    errors: int = 0
    pending_bytes: int = 0

    @property
    def pending_blocks(self) -> int:
        """Neither stored nor dropped yet."""
        return self.offered_blocks - self.stored_blocks - self.dropped_blocks

    @property
    def pending_tokens(self) -> int:
        """Neither stored nor dropped yet."""
        return self.offered_tokens - self.stored_tokens - self.dropped_tokens


@dataclass(slots=True, eq=False)
class _Job:
    block: KVBlock | Encoded | None  # None once written
    note: object
    nbytes: int
    tokens: int
    copy: PinnedCopy | None = None


class Spiller:
    """Takes blocks from the engine's thread. A block's tensors must not be changed after they were offered."""

    def __init__(
        self,
        store: BlockStore,
        options: SpillOptions | None = None,
        *,
        device: torch.device | None = None,
        on_stored: OnStored | None = None,
    ) -> None:
        """Start the thread. On a CUDA `device` the queue's bytes are pinned now, which takes a moment."""
        self.store = store
        self.options = options or SpillOptions()
        self._on_stored = on_stored
        cuda = device is not None and device.type == "cuda"
        self._ring = PinnedRing(self.options.queue_bytes, device) if cuda and device is not None else None
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._stats = SpillStats()
        self._drains = 0  # drains in progress: commit as soon as the queue is empty
        self._closing = False
        self._uncommitted: dict[int, _Job] = {}
        self._commit_at = 0.0  # time.monotonic()
        self._failing = False  # the last commit failed
        self._thread = threading.Thread(target=self._run, name="spill", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> SpillStats:
        """Counts as of now."""
        with self._changed:
            return self._stats

    def offer(self, block: KVBlock, note: object = None) -> bool:
        """Hand a block over; False if it was dropped. Never blocks, never raises.

        Blocks on a CUDA device are encoded there and copied into pinned memory behind the work already queued.
        """
        with self._changed:
            self._count(offered_blocks=1, offered_tokens=len(block))
            job = None if self._closing else self._job(block, note)
            if job is None:
                self._count(dropped_blocks=1, dropped_tokens=len(block))
                return False
            self._count(pending_bytes=job.nbytes)
            self._queue.append(job)
            self._changed.notify_all()
            return True

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was offered is stored or dropped; False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._drains += 1
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._stats.pending_blocks == 0, timeout)
            self._drains -= 1
            return done

    def close(self, timeout: float | None = None) -> bool:
        """Store what is queued and end the thread; False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _job(self, block: KVBlock, note: object) -> _Job | None:
        limit = self.options.queue_bytes
        if self._ring is None or block.keys.device.type != "cuda":
            fits = self._stats.pending_bytes + block.nbytes <= limit
            return _Job(block, note, block.nbytes, len(block)) if fits else None
        try:
            encoded = Encoded.of(block, self.store.identity.codec)
            copy = self._ring.copy(encoded.payload)
        except RuntimeError as error:  # out of device memory, most likely
            self._failed("copying a block off the device", error)
            return None
        if copy is None:
            return None
        return _Job(replace(encoded, payload=copy.data), note, copy.data.nbytes, len(block), copy)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._give_up()

    def _step(self) -> bool:
        """Store one block, or commit when that is due; False when there is nothing left to do."""
        with self._changed:
            self._changed.wait_for(self._awake, self._patience())
            job = self._queue.popleft() if self._queue else None
            ending = self._closing and job is None
        if job is not None:
            self._put(job)
        if self._uncommitted and (ending or self._due()):
            self._commit()
        return not ending

    def _awake(self) -> bool:
        hurried = self._drains > 0 and bool(self._uncommitted) and not self._failing
        return bool(self._queue) or self._closing or hurried

    def _patience(self) -> float | None:
        """Seconds until the next commit is due; None while nothing waits for one."""
        return max(0.0, self._commit_at - time.monotonic()) if self._uncommitted else None

    def _due(self) -> bool:
        if self._failing:
            return time.monotonic() >= self._commit_at
        many = len(self._uncommitted) >= self.options.commit_blocks
        return many or time.monotonic() >= self._commit_at or (self._drains > 0 and not self._queue)

    def _put(self, job: _Job) -> None:
        block_id = None
        assert job.block is not None
        try:
            if job.copy is not None:
                job.copy.arrived.synchronize()
            block_id = self.store.put(job.block)
        except ERRORS as error:
            self._failed("storing a block", error)
        with self._changed:
            if job.copy is not None and self._ring is not None:
                self._ring.release()
            job.block = job.copy = None
            self._count(pending_bytes=-job.nbytes)
            if block_id is None:
                self._drop([job])
                return
        if not self._uncommitted:
            self._commit_at = time.monotonic() + self.options.commit_seconds
        self._uncommitted[block_id] = job

    def _commit(self) -> None:
        done: list[Entry] = []
        try:
            done = self.store.commit()
        except ERRORS as error:
            self._failed("committing", error)
        stored = [(entry, self._uncommitted.pop(entry.id)) for entry in done if entry.id in self._uncommitted]
        waiting = self.store.waiting
        lost = [self._uncommitted.pop(block_id) for block_id in list(self._uncommitted) if block_id not in waiting]
        self._failing = bool(self._uncommitted)
        self._commit_at = time.monotonic() + self.options.commit_seconds
        if self._on_stored is not None and stored:
            try:
                self._on_stored([(entry, job.note) for entry, job in stored])
            except ERRORS as error:
                self._failed("passing on what was stored", error)
        with self._changed:
            self._count(stored_blocks=len(stored), stored_tokens=sum(job.tokens for _, job in stored))
            self._drop(lost)

    def _give_up(self) -> None:
        """Count whatever the thread leaves behind as dropped."""
        with self._changed:
            self._closing = True
            self._drop([*self._queue, *self._uncommitted.values()])
            self._count(pending_bytes=-self._stats.pending_bytes)
            self._queue.clear()
            self._uncommitted.clear()

    def _drop(self, jobs: Sequence[_Job]) -> None:
        self._count(dropped_blocks=len(jobs), dropped_tokens=sum(job.tokens for job in jobs))
        self._changed.notify_all()

    def _failed(self, doing: str, error: Exception) -> None:
        with self._changed:
            self._count(errors=1)
        log.warning("%s failed: %s", doing, error)

    def _count(self, **changes: int) -> None:
        now = self._stats
        self._stats = replace(now, **{name: getattr(now, name) + change for name, change in changes.items()})
