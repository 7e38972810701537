"""Reading blocks back: whole or some layers, one or many at once, every layer checked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

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
        sizes = [self.nbytes(entry, layers) for entry in entries]
        if out is None:
            buffers = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        elif out.dtype != torch.uint8 or out.ndim != 1 or len(out) < sum(sizes):
            raise ValueError(f"out must be uint8 with at least {sum(sizes)} bytes, got {out.dtype} {tuple(out.shape)}")
        else:
            buffers = list(torch.split(out[: sum(sizes)], sizes))
        shares = min(threads, len(entries), THREADS)
        if shares <= 1:
            return [self.read_one(e, layers, b) for e, b in zip(entries, buffers, strict=True)]
        blocks: list[KVBlock | None] = [None] * len(entries)

        def share(first: int) -> None:
            for i in range(first, len(entries), shares):
                blocks[i] = self.read_one(entries[i], layers, buffers[i])

        for done in [self._threads().submit(share, first) for first in range(shares)]:
            done.result()
        return [block for block in blocks if block is not None]

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
        front = os.pread(fd, entry.payload, entry.offset)
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
