"""Reading blocks back: whole or some layers, one or many at once, every layer checked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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


class BlockReader:
    """Reads the blocks of one store. Safe to use from several threads: no file position is shared."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity

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
        if threads <= 1 or len(entries) <= 1:
            return [self.read_one(e, layers, b) for e, b in zip(entries, buffers, strict=True)]
        with ThreadPoolExecutor(min(threads, len(entries))) as pool:
            return list(pool.map(lambda e, b: self.read_one(e, layers, b), entries, buffers))

    def read_one(self, entry: Entry, layers: Sequence[int] | None, buffer: Tensor) -> KVBlock:
        """One block, into `buffer`, uint8 of exactly its payload's bytes."""
        wanted = range(self.identity.shape.layers) if layers is None else layers
        payload = buffer.view(len(wanted), -1)
        return unpack_block(self.identity, self._load(entry, wanted, payload), payload)

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
        front = bytearray(entry.payload)
        try:
            with opened(path) as fd:
                self._fill(fd, entry, layers, front, payload)
                footer = self._footer(fd, entry) if whole else b""
        except FileNotFoundError as error:
            raise StoreError(path, f"block {entry.id} is gone: its segment was dropped") from error
        except OSError as error:
            raise StoreError(path, f"cannot read block {entry.id}: {error.strerror}") from error
        length = head_bytes(front)
        head = unpack_head(bytes(front[:length])) if length is not None and length <= len(front) else None
        if head is None or (head.tag, head.id) != (self.identity.tag, entry.id):
            raise CorruptError(path, f"block {entry.id} is not at byte {entry.offset}, or its head is damaged")
        if whole and not is_footer(footer, head):
            raise CorruptError(path, f"block {entry.id} has a damaged footer")
        check_layers(head, layers, payload, str(path))
        return head

    def _fill(self, fd: int, entry: Entry, layers: Sequence[int], front: bytearray, payload: Tensor) -> None:
        """Read the head, and runs of neighbouring layers, each in one call; the first run together with the head."""
        where, size = segment_path(self.folder, entry.segment).name, payload.shape[1]
        row, before = 0, [memoryview(front)]
        for first, count in _runs(layers):
            target = as_bytes(payload[row : row + count])
            row += count
            if before and first > 0:
                read_all(fd, before, entry.offset, where)
                before = []
            at = entry.offset + (0 if before else entry.payload + first * size)
            read_all(fd, [*before, target], at, where)
            before = []
        if before:
            read_all(fd, before, entry.offset, where)

    def _footer(self, fd: int, entry: Entry) -> bytes:
        layer = LayerLayout.of(entry.codec, self.identity.shape, entry.tokens).nbytes
        layout = RecordLayout(entry.payload, layer, self.identity.shape.layers)
        data = bytearray(FOOTER_BYTES)
        read_all(fd, [memoryview(data)], entry.offset + layout.footer, str(entry.segment))
        return bytes(data)


def _runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """(first, count) of each run of neighbours."""
    runs: list[tuple[int, int]] = []
    for layer in layers:
        if runs and layer == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((layer, 1))
    return runs
