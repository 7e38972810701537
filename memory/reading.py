"""Reading a block back as it was written, whole or some layers, every layer checked. Many at once: loading.py."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
    by_layer,
    check_layers,
    head_bytes,
    is_footer,
    unpack_block,
    unpack_head,
)
from streamvlm.memory.segment import opened, read_all, segment_path

PIECE = 256 << 10  # bytes read at once, which fit the CPU's cache


class BlockReader:
    """Reads the blocks of one store. Safe to use from several threads: no file position is shared."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity

    def nbytes(self, entry: Entry, layers: Sequence[int] | None = None) -> int:
        """Bytes of a block's payload, a multiple of 64."""
        count = self.identity.shape.layers if layers is None else len(layers)
        return count * LayerLayout.of(entry.codec, self.identity.shape, entry.tokens).nbytes

    def read(self, entry: Entry, layers: Sequence[int] | None) -> KVBlock:
        """One block; see BlockStore.read."""
        wanted = range(self.identity.shape.layers) if layers is None else layers
        payload = torch.empty(self.nbytes(entry, layers), dtype=torch.uint8).view(len(wanted), -1)
        return unpack_block(self.identity, self._load(entry, wanted, payload), payload)

    def picture(self, entry: Entry) -> bytes:
        """A block's thumbnail alone; empty if it has none.

        Raises:
            CorruptError: it is damaged, or the block's head is.
            StoreError: the segment is gone or cannot be read.
        """
        path = segment_path(self.folder, entry.segment)
        with reading(path, entry), opened(path) as fd:
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
        with reading(path, entry), opened(path) as fd:
            head = self._head(fd, entry, path)
            row, size = 0, payload.shape[1]
            for first, count in pieces(layers, max(1, PIECE // size)):
                piece = payload[row : row + count]
                read_all(fd, [as_bytes(piece)], entry.offset + entry.payload + first * size, str(path))
                check_layers(head, range(first, first + count), by_layer(piece), str(path))
                row += count
            if whole and not is_footer(self._footer(fd, entry), head):
                raise CorruptError(path, f"block {entry.id} has a damaged footer")
        return head

    def _head(self, fd: int, entry: Entry, path: Path) -> Head:
        return head_of(os.pread(fd, entry.payload, entry.offset), entry, self.identity, path)

    def _footer(self, fd: int, entry: Entry) -> bytes:
        layer = LayerLayout.of(entry.codec, self.identity.shape, entry.tokens).nbytes
        layout = RecordLayout(entry.payload, layer, self.identity.shape.layers)
        data = bytearray(FOOTER_BYTES)
        read_all(fd, [memoryview(data)], entry.offset + layout.footer, str(entry.segment))
        return bytes(data)


def head_of(front: bytes, entry: Entry, identity: Identity, path: Path) -> Head:
    """The head among the bytes before a block's payload.

    Raises:
        CorruptError: it is damaged, or of another block.
    """
    length = head_bytes(front)
    head = unpack_head(front[:length]) if length is not None and length <= len(front) else None
    if head is None or (head.tag, head.id) != (identity.tag, entry.id):
        raise CorruptError(path, f"block {entry.id} is not at byte {entry.offset}, or its head is damaged")
    return head


@contextmanager
def reading(path: Path, entry: Entry) -> Iterator[None]:
    """What the system says against reading a block, as StoreError."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(path, f"block {entry.id} is gone: its segment was dropped") from error
    except OSError as error:
        raise StoreError(path, f"cannot read block {entry.id}: {error.strerror}") from error


def pieces(layers: Sequence[int], longest: int) -> list[tuple[int, int]]:
    """(first, count) of each run of neighbours, cut so that what is read is checked while it is in the CPU's cache."""
    pieces: list[tuple[int, int]] = []
    for layer in layers:
        if pieces and layer == sum(pieces[-1]) and pieces[-1][1] < longest:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
        else:
            pieces.append((layer, 1))
    return pieces
