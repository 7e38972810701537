"""What happens before a store is written again, and how its catalogue is made anew from the segments."""

from __future__ import annotations

import logging
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from streamvlm.errors import FingerprintError, StoreError
from streamvlm.memory.catalogue import NAME, Catalogue, Entry
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.records import PAGE
from streamvlm.memory.segment import (
    PRIVATE,
    Scan,
    SegmentHeader,
    opened,
    record_at,
    scan,
    segment_numbers,
    segment_path,
)

try:
    import fcntl
except ImportError:  # Windows has no flock; stores are not supported there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LOCK = "lock"


@dataclass(slots=True)
class Recovered:
    """What opening a store found and did."""

    sizes: dict[int, int] = field(default_factory=dict)  # bytes of each segment
    next_id: int = 0
    added_blocks: int = 0  # whole, written before a crash and not yet in the catalogue
    lost_blocks: int = 0  # in the catalogue and no longer in a segment
    truncated_bytes: int = 0  # of torn records
    damaged_headers: list[int] = field(default_factory=list)  # segments


def lock(folder: Path) -> int:
    """Become the store's only writer until the returned file descriptor is closed or the process ends.

    Raises:
        StoreError: there is one already.
    """
    if fcntl is None:
        raise StoreError(folder, "storing needs file locks, which this system lacks")
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode(errors="replace") or "unknown"
        os.close(fd)
        raise StoreError(folder, f"is being written by another process ({owner})") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def headers(folder: Path) -> dict[int, SegmentHeader | None]:
    """The header of each segment, None where it is damaged."""
    return {number: SegmentHeader.read(segment_path(folder, number)) for number in segment_numbers(folder)}


def identify(folder: Path, catalogue: Catalogue | None) -> Identity:
    """What the store was made for, by its catalogue or else its segments.

    Raises:
        FingerprintError: its files were not made for the same, or by another version.
        StoreError: nothing says it.
    """
    stored = catalogue.meta("identity") if catalogue is not None else None
    known = Identity.from_json(stored) if stored else None
    for number, header in headers(folder).items():
        if header is None:
            log.warning("%s has a damaged header", segment_path(folder, number))
        elif known is None:
            known = header.identity
        elif header.identity != known:
            path = segment_path(folder, number)
            raise FingerprintError(path, f"belongs to another store: {header.identity.difference(known)}")
    if known is None:
        raise StoreError(folder, "no segment has a readable header, and there is no catalogue")
    return known


def recover(folder: Path, identity: Identity, catalogue: Catalogue) -> Recovered:
    """Bring segments and catalogue to agree: accept whole records, cut torn ones off, forget what is gone."""
    result = Recovered()
    for leftover in folder.glob("seg-*.tmp"):
        leftover.unlink()
    ends = catalogue.ends()
    found = headers(folder)
    result.next_id = catalogue.last_id() + 1
    for number, header in found.items():
        if header is None:
            result.damaged_headers.append(number)
        else:
            result.next_id = max(result.next_id, header.first_id)
        _recover_segment(folder, number, identity, catalogue, ends.get(number, PAGE), result)
    missing = [entry.id for number in ends.keys() - found.keys() for entry in catalogue.within(number)]
    _forget(folder, catalogue, missing, result)
    if result.added_blocks or result.truncated_bytes:
        log.info("%s: recovered %d blocks, cut off %d bytes", folder, result.added_blocks, result.truncated_bytes)
    return result


def _recover_segment(
    folder: Path, number: int, identity: Identity, catalogue: Catalogue, indexed: int, result: Recovered
) -> None:
    path = segment_path(folder, number)
    size = path.stat().st_size
    if size < indexed:
        with opened(path) as fd:
            entries = catalogue.within(number, size)
            gone = [entry.id for entry in entries if record_at(fd, identity, entry.offset) is None]
        _forget(folder, catalogue, gone, result)
        indexed = catalogue.ends().get(number, PAGE)
    tail = scan(path, identity, indexed)
    catalogue.add(_entries(number, tail, identity))
    result.added_blocks += len(tail.found)
    result.next_id = max([result.next_id, *(found.head.id + 1 for found in tail.found)])
    if size > tail.end:
        os.truncate(path, tail.end)
        result.truncated_bytes += size - tail.end
    result.sizes[number] = tail.end


def _entries(number: int, tail: Scan, identity: Identity) -> list[Entry]:
    return [
        Entry.of(found.head.id, found.head.about, (number, found.offset), found.layout, identity.codec)
        for found in tail.found
    ]


def _forget(folder: Path, catalogue: Catalogue, ids: list[int], result: Recovered) -> None:
    if ids:
        log.warning("%s: %d blocks in the catalogue are no longer on the disk", folder, len(ids))
        catalogue.remove(ids)
        result.lost_blocks += len(ids)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a new catalogue was made from."""

    segments: int
    blocks: int
    damaged_bytes: int  # between whole records


def rebuild(folder: Path) -> Rebuilt:
    """Make the catalogue from the segments alone. The caller holds the lock.

    Raises:
        FingerprintError: the segments do not belong together.
        StoreError: no segment has a readable header.
    """
    identity = identify(folder, None)
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{NAME}{suffix}").unlink(missing_ok=True)
    catalogue = Catalogue(folder)
    blocks = damaged = 0
    try:
        for number in segment_numbers(folder):
            part = scan(segment_path(folder, number), identity)
            catalogue.add(_entries(number, part, identity))
            blocks, damaged = blocks + len(part.found), damaged + part.damaged
        catalogue.add([], {"identity": identity.to_json()})  # last: a catalogue without it is not finished
    finally:
        catalogue.close()
    return Rebuilt(len(segment_numbers(folder)), blocks, damaged)


def sound_catalogue(folder: Path) -> Catalogue:
    """The catalogue, made anew if it is missing, unfinished or unreadable. The caller holds the lock."""
    try:
        catalogue = Catalogue(folder)
        if catalogue.meta("identity") is not None:
            return catalogue
        catalogue.close()
    except StoreError as error:
        if isinstance(error.__cause__, sqlite3.OperationalError):  # locked, or no room: not the file's fault
            raise
        log.warning("the catalogue is unreadable and made anew: %s", error)
    rebuild(folder)
    return Catalogue(folder)


def rebuild_catalogue(path: str | Path) -> Rebuilt:
    """Make the catalogue of the store at `path` anew, from its segments alone.

    Raises:
        StoreError: there is no store, another process writes it, or no segment can be identified.
    """
    folder = Path(path)
    if not segment_numbers(folder):
        raise StoreError(folder, "holds no memory")
    fd = lock(folder)
    try:
        return rebuild(folder)
    finally:
        os.close(fd)
