"""Reading blocks back: whole or some layers, one or many at once, every layer checked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from streamvlm.errors import CorruptError, StoreError
from streamvlm.memory.blocks import KVBlock
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.codecs import LayerLayout, as_bytes
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.records import (
    FOOTER_BYTES,
    Encoded,
    Head,
    RecordLayout,
    check_layers,
    head_bytes,
    is_footer,
    unpack_block,
    unpack_head,
)
from streamvlm.memory.segment import opened, read_all, segment_path

THREADS = 16  # reads in flight at most: a disk is faster when asked for several things at once
PIECE = 1 << 20  # bytes read at once
RUN = 4 << 20  # bytes of neighbouring blocks read at once
SHARE = 512 << 10  # bytes that another thread is worth: of small blocks, more is Python than disk
NEAR = 64 << 10  # bytes between two blocks that are read rather than skipped

T = TypeVar("T")


class BlockReader:
    """Reads the blocks of one store. Safe to use from several threads: no file position is shared."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity
        self._starting = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def nbytes(self, entry: Entry, layers: Sequence[int] | None = None) -> int:
        """Bytes of a block's payload, a multiple of 64."""
        count = self.identity.shape.layers if layers is None else len(layers)
        return count * LayerLayout.of(entry.codec, self.identity.shape, entry.tokens).nbytes

    def read(
        self, entries: Sequence[Entry], layers: Sequence[int] | None, threads: int, out: Tensor | None
    ) -> list[KVBlock]:
        """The blocks of `entries`, in their order; see BlockStore.read."""
        if layers is None and out is None:
            return self._read_runs(entries, threads)
        sizes = [self.nbytes(entry, layers) for entry in entries]
        if out is None:
            buffers = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        elif out.dtype != torch.uint8 or out.ndim != 1 or len(out) < sum(sizes):
            raise ValueError(f"out must be uint8 with at least {sum(sizes)} bytes, got {out.dtype} {tuple(out.shape)}")
        else:
            buffers = list(torch.split(out[: sum(sizes)], sizes))
        return self._shared_out(lambda i: self.read_one(entries[i], layers, buffers[i]), len(entries), threads)

    def _read_runs(self, entries: Sequence[Entry], threads: int) -> list[KVBlock]:
        """Whole blocks, neighbours in one read."""
        runs = _runs(entries)
        threads = min(threads, 1 + sum(entry.length for entry in entries) // SHARE)
        found = self._shared_out(lambda i: self._read_run([entries[j] for j in runs[i]]), len(runs), threads)
        blocks = {j: block for run, part in zip(runs, found, strict=True) for j, block in zip(run, part, strict=True)}
        return [blocks[j] for j in range(len(entries))]

    def _read_run(self, entries: Sequence[Entry]) -> list[KVBlock]:
        first, path = entries[0], segment_path(self.folder, entries[0].segment)
        # Not to the end of the last record: its padding may be missing if the writer was killed.
        end = entries[-1].offset + entries[-1].payload + self.nbytes(entries[-1])
        data = torch.empty(end - first.offset, dtype=torch.uint8)
        with _reading(path, first), opened(path) as fd:
            read_all(fd, [as_bytes(data)], first.offset, str(path))
        return [self._parse(entry, data[entry.offset - first.offset :], path) for entry in entries]

    def _parse(self, entry: Entry, record: Tensor, path: Path) -> KVBlock:
        head = self._checked(bytes(as_bytes(record[: entry.payload])), entry, path)
        layers = self.identity.shape.layers
        payload = record[entry.payload : entry.payload + self.nbytes(entry)].view(layers, -1)
        check_layers(head, range(layers), payload, str(path))
        return unpack_block(self.identity, head, payload)

    def _shared_out(self, work: Callable[[int], T], count: int, threads: int) -> list[T]:
        """`work` of 0, 1, … `count` - 1, on several threads."""
        shares = min(threads, count, THREADS)
        if shares <= 1:
            return [work(i) for i in range(count)]

        def share(first: int) -> list[T]:
            return [work(i) for i in range(first, count, shares)]

        parts = [done.result() for done in [self._threads().submit(share, first) for first in range(shares)]]
        return [parts[i % shares][i // shares] for i in range(count)]

    def close(self) -> None:
        """End the threads."""
        with self._starting:
            if self._pool is not None:
                self._pool.shutdown()

    def _threads(self) -> ThreadPoolExecutor:
        """Started when first needed."""
        with self._starting:
            self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="read")
            return self._pool

    def read_one(self, entry: Entry, layers: Sequence[int] | None, buffer: Tensor) -> KVBlock:
        """One block, into `buffer`, uint8 of exactly its payload's bytes."""
        wanted = range(self.identity.shape.layers) if layers is None else layers
        payload = buffer.view(len(wanted), -1)
        return unpack_block(self.identity, self._load(entry, wanted, payload), payload)

    def picture(self, entry: Entry) -> bytes:
        """A block's thumbnail alone; empty if it has none.

        Raises:
            CorruptError: it is damaged, or the block's head is.
            StoreError: the segment is gone or cannot be read.
        """
        path = segment_path(self.folder, entry.segment)
        with _reading(path, entry), opened(path) as fd:
            head = self._head(fd, entry, path)
        if head.picture_damaged:
            raise CorruptError(path, f"the picture of block {entry.id} fails its checksum")
        return head.about.thumbnail

    def encoded(self, entry: Entry) -> Encoded:
        """One block as it was written, its footer checked too."""
        layers = self.identity.shape.layers
        payload = torch.empty(self.nbytes(entry), dtype=torch.uint8).view(layers, -1)
        return Encoded(self._load(entry, range(layers), payload, whole=True).about, payload)

    def _load(self, entry: Entry, layers: Sequence[int], payload: Tensor, *, whole: bool = False) -> Head:
        """Read and check some layers of a block.

        Raises:
            CorruptError: a checksum fails, or another record or none is at that place.
            StoreError: the segment is gone or cannot be read.
        """
        path = segment_path(self.folder, entry.segment)
        with _reading(path, entry), opened(path) as fd:
            head = self._head(fd, entry, path)
            row, size = 0, payload.shape[1]
            for first, count in _pieces(layers, max(1, PIECE // size)):
                piece = payload[row : row + count]
                read_all(fd, [as_bytes(piece)], entry.offset + entry.payload + first * size, str(path))
                check_layers(head, range(first, first + count), piece, str(path))
                row += count
            if whole and not is_footer(self._footer(fd, entry), head):
                raise CorruptError(path, f"block {entry.id} has a damaged footer")
        return head

    def _head(self, fd: int, entry: Entry, path: Path) -> Head:
        return self._checked(os.pread(fd, entry.payload, entry.offset), entry, path)

    def _checked(self, front: bytes, entry: Entry, path: Path) -> Head:
        length = head_bytes(front)
        head = unpack_head(front[:length]) if length is not None and length <= len(front) else None
        if head is None or (head.tag, head.id) != (self.identity.tag, entry.id):
            raise CorruptError(path, f"block {entry.id} is not at byte {entry.offset}, or its head is damaged")
        return head

    def _footer(self, fd: int, entry: Entry) -> bytes:
        layer = LayerLayout.of(entry.codec, self.identity.shape, entry.tokens).nbytes
        layout = RecordLayout(entry.payload, layer, self.identity.shape.layers)
        data = bytearray(FOOTER_BYTES)
        read_all(fd, [memoryview(data)], entry.offset + layout.footer, str(entry.segment))
        return bytes(data)


@contextmanager
def _reading(path: Path, entry: Entry) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(path, f"block {entry.id} is gone: its segment was dropped") from error
    except OSError as error:
        raise StoreError(path, f"cannot read block {entry.id}: {error.strerror}") from error


def _pieces(layers: Sequence[int], longest: int) -> list[tuple[int, int]]:
    """(first, count) of each run of neighbours, cut so that what is read is checked while it is in the CPU's cache."""
    pieces: list[tuple[int, int]] = []
    for layer in layers:
        if pieces and layer == sum(pieces[-1]) and pieces[-1][1] < longest:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
        else:
            pieces.append((layer, 1))
    return pieces


def _runs(entries: Sequence[Entry]) -> list[list[int]]:
    """The indices of `entries` by place, in runs that one read covers."""
    runs: list[list[int]] = []
    for i in sorted(range(len(entries)), key=lambda i: (entries[i].segment, entries[i].offset)):
        entry = entries[i]
        first, last = (entries[runs[-1][0]], entries[runs[-1][-1]]) if runs else (entry, entry)
        near = entry.segment == last.segment and entry.offset - (last.offset + last.length) <= NEAR
        if runs and near and entry.offset + entry.length - first.offset <= RUN:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs
