"""Segment files: a page of header, then records one after the other. Only ever appended to, and deleted whole."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from isal.isal_zlib import crc32
from torch import Tensor

from streamvlm.errors import CorruptError, FingerprintError
from streamvlm.memory.codecs import as_bytes
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.records import (
    FIRST_BYTES,
    FOOTER_BYTES,
    PAGE,
    Head,
    RecordLayout,
    align,
    by_layer,
    check_layers,
    head_bytes,
    is_footer,
    unpack_head,
)

VERSION = 2  # 1 had no checksum of its own for the thumbnail
PRIVATE = 0o600  # keys and values reveal the video
_MAGIC = b"StreamKV"
_START = struct.Struct("<8sIII")  # magic, crc32 of what follows it, version, length of the JSON after it
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first page of a segment: with it a segment can be read without anything else."""

    identity: Identity
    number: int
    first_id: int  # no block in it has a lower id

    def pack(self) -> bytes:
        """Exactly one page."""
        text = {"identity": self.identity.to_json(), "number": self.number, "first_id": self.first_id}
        data = json.dumps(text).encode()
        rest = struct.pack("<II", VERSION, len(data)) + data
        page = _MAGIC + struct.pack("<I", crc32(rest)) + rest
        if len(page) > PAGE:
            raise ValueError(
                f"the fingerprint takes {len(data)} bytes and must fit {PAGE - _START.size}: hash its parts"
            )
        return page.ljust(PAGE, b"\0")

    @classmethod
    def read(cls, path: Path) -> SegmentHeader | None:
        """The header of the file at `path`, or None if it is damaged.

        Raises:
            FingerprintError: another version of the format wrote it.
        """
        with path.open("rb") as file:
            page = file.read(PAGE)
        if len(page) < _START.size:
            return None
        magic, crc, version, size = _START.unpack_from(page)
        if magic != _MAGIC or crc32(page[12 : _START.size + min(size, PAGE)]) != crc:
            return None
        if version != VERSION:
            raise FingerprintError(path, f"format version is {version}, wanted {VERSION}")
        fields = json.loads(page[_START.size : _START.size + size])
        return cls(Identity.from_json(fields["identity"]), int(fields["number"]), int(fields["first_id"]))


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` of a store lies."""
    return folder / f"seg-{number:06d}.kv"


def segment_numbers(folder: Path) -> list[int]:
    """The segments of a store, oldest first."""
    return sorted(int(path.stem[4:]) for path in folder.glob("seg-*.kv") if path.stem[4:].isdigit())


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in `folder` last."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file descriptor to read `path` from."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class SegmentWriter:
    """Appends to one segment. Whatever fails leaves `end` where it was."""

    def __init__(self, folder: Path, number: int, end: int) -> None:
        self.number = number
        self.path = segment_path(folder, number)
        self.end = end
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    @classmethod
    def create(cls, folder: Path, header: SegmentHeader) -> SegmentWriter:
        """A new segment. It appears whole or not at all."""
        path = segment_path(folder, header.number)
        fresh = path.with_suffix(".tmp")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            write_all(fd, [memoryview(header.pack())], 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(path)
        sync_folder(folder)
        return cls(folder, header.number, PAGE)

    def append(self, buffers: list[memoryview]) -> int:
        """Write one record; returns its offset. It is on the disk only after `sync`."""
        offset = self.end
        try:
            self.end += write_all(self._fd, buffers, offset)
        except OSError:
            self.truncate(offset)
            raise
        return offset

    def truncate(self, end: int) -> None:
        """Forget everything from `end` on."""
        self.end = end
        os.ftruncate(self._fd, end)

    def sync(self) -> None:
        """Return once everything appended is on the disk."""
        _sync_data(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def write_all(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
    """Write all of `buffers` at `offset`; returns their bytes."""
    left = [buffer.cast("B") for buffer in buffers if buffer.nbytes]
    at = offset
    while left:
        written = os.pwritev(fd, left, at)
        at += written
        while left and written >= left[0].nbytes:
            written -= left.pop(0).nbytes
        if written:
            left[0] = left[0][written:]
    return at - offset


def read_all(fd: int, buffers: Sequence[memoryview], offset: int, where: str) -> None:
    """Fill all of `buffers` from `offset`; CorruptError if the file ends before."""
    left = [buffer.cast("B") for buffer in buffers if buffer.nbytes]
    while left:
        got = os.preadv(fd, left, offset)
        if got == 0:
            raise CorruptError(where, f"ends at byte {offset}, inside a record")
        offset += got
        while left and got >= left[0].nbytes:
            got -= left.pop(0).nbytes
        if got:
            left[0] = left[0][got:]


def read_payload(fd: int, layout: RecordLayout, offset: int, where: str) -> Tensor:
    """All layers' bytes uint8 [layers, bytes per layer] of the record at `offset`."""
    payload = torch.empty(layout.layers, layout.layer, dtype=torch.uint8)
    read_all(fd, [as_bytes(payload)], offset + layout.payload, where)
    return payload


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A whole record in a segment."""

    offset: int
    head: Head
    layout: RecordLayout

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.offset + self.layout.length


def record_at(fd: int, identity: Identity, offset: int) -> Found | None:
    """The record of this identity at `offset`, if head, footer and every layer are intact; its picture need not be."""
    length = head_bytes(os.pread(fd, FIRST_BYTES, offset))
    size = os.fstat(fd).st_size
    if length is None or offset + length > size:
        return None
    head = unpack_head(os.pread(fd, length, offset))
    if head is None or head.tag != identity.tag or len(head.layer_crcs) != identity.shape.layers:
        return None
    layout = RecordLayout.of(identity, head.nbytes, head.tokens)
    if not is_footer(os.pread(fd, FOOTER_BYTES, offset + layout.footer), head):
        return None
    try:
        payload = read_payload(fd, layout, offset, "")
        check_layers(head, range(layout.layers), by_layer(payload), "")
    except CorruptError:
        return None
    return Found(offset, head, layout)


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment holds from some offset on."""

    found: list[Found]
    end: int  # after the last whole record
    damaged: int  # bytes before `end` that belong to no whole record


def scan(path: Path, identity: Identity, start: int = PAGE) -> Scan:
    """Read every whole record from `start` on, skipping what is not one."""
    found: list[Found] = []
    end = at = align(start, PAGE)
    damaged = 0
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        while at < size:
            record = record_at(fd, identity, at)
            if record is None:
                at += PAGE
                continue
            damaged += at - end
            found.append(record)
            end = at = record.end
    return Scan(found, end, damaged)
