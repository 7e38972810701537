"""SegmentLog: the writing side of a store. It never stops the program that watches: a full disk is waited out."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamvlm.errors import StoreError
from streamvlm.memory.catalogue import Catalogue, Entry
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.records import PAGE, Encoded, pack
from streamvlm.memory.recovery import Recovered
from streamvlm.memory.segment import SegmentHeader, SegmentWriter, segment_path, sync_folder

log = logging.getLogger(__name__)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SMALLEST_QUOTA = 16 * PAGE


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store uses the disk."""

    segment_bytes: int = 1 << 30
    quota: int | None = None  # bytes of all segments; the oldest are dropped beyond it
    retry_seconds: float = 10.0  # pause of writing when the disk is full

    def __post_init__(self) -> None:
        if self.segment_bytes < 2 * PAGE:
            raise ValueError(f"segment_bytes must be at least {2 * PAGE}, got {self.segment_bytes}")
        if self.quota is not None and self.quota < SMALLEST_QUOTA:
            raise ValueError(f"quota must be at least {SMALLEST_QUOTA} bytes, got {self.quota}")
        if self.retry_seconds < 0:
            raise ValueError(f"retry_seconds must be 0 or more, got {self.retry_seconds}")

    @property
    def roll_at(self) -> int:
        """Bytes at which a segment is full. A quota is spread over several, so that little is dropped at a time."""
        return self.segment_bytes if self.quota is None else min(self.segment_bytes, max(2 * PAGE, self.quota // 8))


@dataclass(slots=True)
class WriteCounts:
    """What has not gone as planned since the store was opened."""

    refused_blocks: int = 0  # the disk was full, or the block alone is over the quota
    refused_tokens: int = 0
    failed_commits: int = 0


class SegmentLog:
    """Appends records, commits them, rolls segments and keeps the quota. Not thread-safe."""

    def __init__(self, folder: Path, identity: Identity, options: StoreOptions, catalogue: Catalogue) -> None:
        self.folder = folder
        self.identity = identity
        self.options = options
        self.catalogue = catalogue
        self.counts = WriteCounts()
        self.sizes: dict[int, int] = {}  # bytes of each segment, oldest first
        self.clock: Callable[[], float] = time.monotonic
        self.next_id = 0
        self._active: SegmentWriter | None = None
        self._pending: list[Entry] = []  # written
        self._done: list[Entry] = []  # committed, and not yet returned by `commit`
        self._paused_until = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all segments."""
        return sum(self.sizes.values())

    @property
    def paused(self) -> bool:
        """Whether writing waits because the disk was full."""
        return self.clock() < self._paused_until

    def start(self, found: Recovered) -> None:
        """Go on after the newest segment, or make a new one if that is damaged or there is none.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        self.sizes, self.next_id = dict(found.sizes), found.next_id
        newest = max(self.sizes, default=None)
        if newest is None or newest in found.damaged_headers:
            self._roll()
        else:
            self._active = SegmentWriter(self.folder, newest, self.sizes[newest])

    def put(self, block: Encoded) -> int | None:
        """Append a block; its id once committed, or None if there is no room for it now."""
        if self.paused:
            self._refuse(block)
            return None
        record, buffers = pack(self.identity, self.next_id, block)
        quota = self.options.quota
        if quota is not None and record.length + 2 * PAGE > quota:
            log.warning("%s: a block of %d bytes does not fit the quota of %d", self.folder, record.length, quota)
            self._refuse(block)
            return None
        try:
            self._make_room(record.length)
            assert self._active is not None
            offset = self._active.append(buffers)
        except (OSError, StoreError) as error:
            self._pause(error)
            self._refuse(block)
            return None
        place = (self._active.number, offset)
        self._pending.append(Entry.of(self.next_id, block.about, place, record, self.identity.codec))
        self.sizes[self._active.number] = self._active.end
        self.next_id += 1
        return self.next_id - 1

    @property
    def waiting(self) -> frozenset[int]:
        """Ids of blocks that were put and may still come to exist."""
        return frozenset(entry.id for entry in (*self._pending, *self._done))

    def commit(self) -> list[Entry]:
        """Make everything put so far exist; returns what came to exist since the last call.

        Whatever failed is counted, and tried again next time if it can be.
        """
        self._commit()
        done, self._done = self._done, []
        return done

    def _commit(self) -> None:
        if not self._pending:
            return
        assert self._active is not None
        try:
            self._active.sync()
        except OSError as error:
            self._abandon(error)
            return
        try:
            self.catalogue.add(self._pending)
        except StoreError as error:
            self.counts.failed_commits += 1
            log.warning("blocks are written and not yet in the catalogue: %s", error)
            return
        self._done += self._pending
        self._pending = []

    def drop_oldest(self) -> int:
        """Delete the oldest segment that is not being written; returns its bytes, 0 if there is none."""
        assert self._active is not None
        number = min(self.sizes)
        if number == self._active.number:
            return 0
        blocks, tokens = self.catalogue.remove_segment(number)
        segment_path(self.folder, number).unlink(missing_ok=True)
        sync_folder(self.folder)
        log.info("dropped segment %d of %s: %d blocks, %d tokens", number, self.folder, blocks, tokens)
        return self.sizes.pop(number)

    def roll(self) -> bool:
        """Start a new segment if the current one holds anything; False if that has to wait."""
        assert self._active is not None
        self._commit()
        if self._pending:
            return False
        if self._active.end > PAGE:
            self._roll()
        return True

    def close(self) -> None:
        """Close the file. What was not committed is found again when the store is opened."""
        if self._active is not None:
            self._active.close()

    def _roll(self) -> None:
        number = max(self.sizes, default=-1) + 1
        header = SegmentHeader(self.identity, number, self.next_id)
        fresh = SegmentWriter.create(self.folder, header)
        if self._active is not None:
            self._active.close()
        self._active, self.sizes[number] = fresh, fresh.end

    def _make_room(self, length: int) -> None:
        assert self._active is not None
        quota = self.options.quota
        if self._active.end > PAGE and self._active.end + length > self.options.roll_at and not self.roll():
            raise OSError(errno.ENOSPC, "the catalogue cannot be written")
        while quota is not None and self.nbytes + length > quota:
            if not self.drop_oldest() and not (self._active.end > PAGE and self.roll()):
                raise OSError(errno.EDQUOT, f"the quota of {quota} bytes is used up")

    def _refuse(self, block: Encoded) -> None:
        self.counts.refused_blocks += 1
        self.counts.refused_tokens += len(block.about)

    def _pause(self, error: OSError | StoreError) -> None:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise StoreError(self.folder, f"cannot write: {error.strerror}") from error
        self._paused_until = self.clock() + self.options.retry_seconds
        log.warning("%s: %s; nothing is stored for %g s", self.folder, error, self.options.retry_seconds)

    def _abandon(self, error: OSError) -> None:
        """After a failed sync nobody knows which pages are on the disk: forget them all."""
        assert self._active is not None
        lost, self._pending = self._pending, []
        self.counts.failed_commits += 1
        self.counts.refused_blocks += len(lost)
        self.counts.refused_tokens += sum(entry.tokens for entry in lost)
        self._active.truncate(lost[0].offset)
        self.sizes[self._active.number] = self._active.end
        self._pause(error)
