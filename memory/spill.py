"""Spiller: writes blocks to a store on a thread of its own. It may drop some, counted; it never makes a step wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from streamvlm.errors import StreamVLMError
from streamvlm.memory.backlog import BATCH_BLOCKS, BATCH_BYTES, Backlog, Job, SpillStats
from streamvlm.memory.blocks import KVBlock
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.leaving import Leaving, settled
from streamvlm.memory.pinned import PinnedRing
from streamvlm.memory.records import Encoded
from streamvlm.memory.store import BlockStore

log = logging.getLogger(__name__)
ERRORS = (StreamVLMError, OSError, ValueError, RuntimeError)  # what a store or a device may raise

Prepare = Callable[[KVBlock, object], tuple[KVBlock, object]]
"""Makes what is stored, and its note, of a block and the note it was offered with; on the thread that encodes it."""

OnStored = Callable[[Sequence[tuple[Entry, object]]], None]
"""Gets what has just been committed, each with its note; runs on the spiller's thread."""


@dataclass(frozen=True, slots=True)
class SpillOptions:
    """How much may wait, and how long."""

    queue_bytes: int = 256 << 20
    commit_blocks: int = 64
    commit_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.queue_bytes < 1 or self.commit_blocks < 1 or self.commit_seconds <= 0:
            raise ValueError(f"all of these must be positive: {self}")


class Spiller:
    """Takes blocks from the engine's thread. A block's tensors must not be changed after they were offered.

    Small blocks are written in batches, when there is one or a commit is due: every time the thread wakes it takes the
    interpreter from the engine's, and most of what a small block costs is the same for many.
    """

    def __init__(
        self,
        store: BlockStore,
        options: SpillOptions | None = None,
        *,
        device: torch.device | None = None,
        prepare: Prepare | None = None,
        on_stored: OnStored | None = None,
    ) -> None:
        """Start the thread. On a CUDA `device` the queue's bytes are pinned now, which takes a moment."""
        self.store = store
        self.options = options or SpillOptions()
        self._prepare = prepare or (lambda block, note: (block, note))
        self._on_stored = on_stored
        cuda = device is not None and device.type == "cuda"
        self._ring = PinnedRing(self.options.queue_bytes, device) if cuda and device is not None else None
        self._changed = threading.Condition()
        limits = min(BATCH_BLOCKS, self.options.commit_blocks), min(BATCH_BYTES, self.options.queue_bytes // 4)
        self._backlog = Backlog(*limits)
        self._drains = 0  # drains in progress: commit as soon as the queue is empty
        self._closing = False
        self._taken: Sequence[Job] = ()  # out of the backlog, not yet written
        self._uncommitted: dict[int, Job] = {}
        self._commit_at = 0.0  # time.monotonic() at which all that waits is written and committed
        self._failing = False  # the last commit failed
        self._thread = threading.Thread(target=self._run, name="spill", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> SpillStats:
        """Counts as of now."""
        with self._changed:
            return self._backlog.stats

    def offer(self, block: KVBlock | Leaving, note: object = None) -> bool:
        """Hand a block over; False if it was dropped. Never blocks, never raises.

        Blocks on a CUDA device are encoded there and copied into pinned memory behind the work already queued.
        """
        with self._changed:
            self._backlog.count(offered_blocks=1, offered_tokens=len(block))
            job = None if self._closing else self._job(block, note)
            if job is None:
                self._backlog.count(dropped_blocks=1, dropped_tokens=len(block))
                return False
            first = not self._backlog and not self._uncommitted
            self._backlog.add(job)
            if first:
                self._commit_at = time.monotonic() + self.options.commit_seconds
            if first or self._backlog.full:
                self._changed.notify_all()
            return True

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was offered is stored or dropped; False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._drains += 1
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._backlog.stats.pending_blocks == 0, timeout)
            self._drains -= 1
            return done

    def close(self, timeout: float | None = None) -> bool:
        """Store what is queued and end the thread; False if that takes longer than `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _job(self, block: KVBlock | Leaving, note: object) -> Job | None:
        limit = self.options.queue_bytes
        if self._ring is None or block.keys.device.type != "cuda":
            fits = self._backlog.stats.pending_bytes + block.nbytes <= limit
            return Job(block, note, block.nbytes, len(block)) if fits else None
        try:
            made, note = self._prepare(block.block() if isinstance(block, Leaving) else block, note)
            encoded = Encoded.of(made, self.store.identity.codec)
            copy = self._ring.copy(encoded.payload)
        except ERRORS as error:  # out of device memory, most likely
            self._failed("copying a block off the device", error)
            return None
        if copy is None:
            return None
        return Job(replace(encoded, payload=copy.data), note, copy.data.nbytes, len(block), copy)

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._give_up()

    def _step(self) -> bool:
        """Store a batch, and commit, when that is due; False when there is nothing left to do."""
        with self._changed:
            if not self._awake():
                self._changed.wait(self._patience())
            jobs = self._backlog.take() if self._awake() or time.monotonic() >= self._commit_at else []
            ending = self._closing and not jobs
            self._taken = jobs
        if jobs:
            self._put(jobs)
        if self._uncommitted and (ending or self._due()):
            self._commit()
        return not ending

    def _awake(self) -> bool:
        waits = bool(self._backlog) or (bool(self._uncommitted) and not self._failing)
        return self._backlog.full or self._closing or (self._drains > 0 and waits)

    def _patience(self) -> float | None:
        """Seconds until the next commit is due; None while nothing waits for one."""
        return max(0.0, self._commit_at - time.monotonic()) if self._backlog or self._uncommitted else None

    def _due(self) -> bool:
        if self._failing:
            return time.monotonic() >= self._commit_at
        many = len(self._uncommitted) >= self.options.commit_blocks
        return many or time.monotonic() >= self._commit_at or (self._drains > 0 and not self._backlog)

    def _put(self, jobs: Sequence[Job]) -> None:
        self._settle(jobs)
        put = [(self._write(job), job) for job in jobs]
        with self._changed:
            for job in jobs:
                if job.copy is not None and self._ring is not None:
                    self._ring.release()
                job.block = job.copy = None
            self._backlog.count(pending_bytes=-sum(job.nbytes for job in jobs))
            self._taken = ()
            self._uncommitted |= {block_id: job for block_id, job in put if block_id is not None}
            self._drop([job for block_id, job in put if block_id is None])

    def _settle(self, jobs: Sequence[Job]) -> None:
        """Un-rotate what left the caller's thread as it was."""
        leaving = [(job, job.block) for job in jobs if isinstance(job.block, Leaving)]
        blocks: Sequence[KVBlock | None] = [None] * len(leaving)
        try:
            blocks = settled([block for _, block in leaving])
        except ERRORS as error:
            self._failed("un-rotating blocks", error)
        for (job, _), block in zip(leaving, blocks, strict=True):
            job.block = block

    def _write(self, job: Job) -> int | None:
        """The block's id, or None if it is not stored."""
        try:
            if isinstance(job.block, KVBlock):
                job.block, job.note = self._prepare(job.block, job.note)
            if job.copy is not None:
                job.copy.arrived.synchronize()
            assert not isinstance(job.block, Leaving)
            return None if job.block is None else self.store.put(job.block)
        except ERRORS as error:
            self._failed("storing a block", error)
            return None

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
            self._backlog.count(stored_blocks=len(stored), stored_tokens=sum(job.tokens for _, job in stored))
            self._drop(lost)

    def _give_up(self) -> None:
        """Count whatever the thread leaves behind as dropped."""
        with self._changed:
            self._closing = True
            left = [*self._uncommitted.values(), *self._taken]
            while self._backlog:
                left += self._backlog.take()
            self._backlog.count(pending_bytes=-self._backlog.stats.pending_bytes)
            self._uncommitted.clear()
            self._drop(left)

    def _drop(self, jobs: Sequence[Job]) -> None:
        self._backlog.drop(jobs)
        self._changed.notify_all()

    def _failed(self, doing: str, error: Exception) -> None:
        with self._changed:
            self._backlog.count(errors=1)
        log.warning("%s failed: %s", doing, error)
