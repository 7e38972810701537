"""Backlog: the blocks that wait to be stored, and what became of all that ever did."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

from streamvlm.memory.blocks import KVBlock
from streamvlm.memory.leaving import Leaving
from streamvlm.memory.pinned import PinnedCopy
from streamvlm.memory.records import Encoded

BATCH_BLOCKS = 16  # that are written together
BATCH_BYTES = 1 << 20  # about what stays in a core's cache: larger blocks gain nothing from company


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
class Job:
    """A block that is to be stored."""

    block: KVBlock | Leaving | Encoded | None  # None once written
    note: object
    nbytes: int
    tokens: int
    copy: PinnedCopy | None = None


class Backlog:
    """The queue, which is taken in batches, and the counts. Not thread-safe."""

    def __init__(self, blocks: int, nbytes: int) -> None:
        """A batch has up to so many blocks, and not many more bytes."""
        self.blocks, self.nbytes = blocks, nbytes
        self._jobs: deque[Job] = deque()
        self._queued = 0  # bytes
        self._counts = dict.fromkeys((field.name for field in fields(SpillStats)), 0)

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def full(self) -> bool:
        """Whether there is a batch."""
        return len(self._jobs) >= self.blocks or self._queued >= self.nbytes

    @property
    def stats(self) -> SpillStats:
        """Counts as of now."""
        return SpillStats(**self._counts)

    def count(self, **changes: int) -> None:
        """Add to counts."""
        for name, change in changes.items():
            self._counts[name] += change

    def add(self, job: Job) -> None:
        """At the end of the queue."""
        self._jobs.append(job)
        self._queued += job.nbytes
        self._counts["pending_bytes"] += job.nbytes

    def take(self) -> list[Job]:
        """The oldest, as many as make a batch."""
        jobs: list[Job] = []
        taken = 0
        while self._jobs and len(jobs) < self.blocks and taken < self.nbytes:
            jobs.append(self._jobs.popleft())
            taken += jobs[-1].nbytes
        self._queued -= taken
        return jobs

    def drop(self, jobs: Sequence[Job]) -> None:
        """These will not be stored."""
        self.count(dropped_blocks=len(jobs), dropped_tokens=sum(job.tokens for job in jobs))
