"""Loading: what a question needs of many blocks, from the disk into one set of tensors.

    entries, by place -> neighbours in one preadv -> checksums -> rows into their place -> decoded at once

Blocks of a small model are read by the hundred, so that what is done once per block decides. Nothing is made of one but
its head: the bytes go through a small buffer that stays in the CPU's cache, where they are checked and from where they
are copied to the rows they will have among all others. Large layers are read and checked on several threads. With
small ones the threads would only pass the interpreter's lock to and fro, so that one reads them all. The disk is told
beforehand of what lies beyond a gap; what follows without one, the system foresees.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamvlm.errors import CorruptError
from streamvlm.memory.blocks import BlockRun, following
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.codecs import ALIGN, LayerLayout, decode_joined
from streamvlm.memory.fingerprint import Identity
from streamvlm.memory.reading import PIECE, head_of, pieces, reading
from streamvlm.memory.records import Head, align, check_layers
from streamvlm.memory.segment import opened, read_all, segment_path

THREADS = 16  # reads in flight at most: a disk is faster when asked for several things at once
WORTH = 64 << 10  # bytes of a layer from which its checksum takes longer than passing on the interpreter's lock
NEAR = 64 << 10  # bytes between two things that are read rather than skipped
AHEAD = 16 << 20  # bytes the disk is asked for before they are read


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """Blocks that were read, in the order they were asked for."""

    run: BlockRun
    pictures: tuple[bytes, ...]  # a JPEG of each; empty where there is none or it is damaged


class _Part(NamedTuple):
    """A stretch of a record: its head, some layers, or both."""

    entry: int  # its index
    offset: int  # bytes from the segment's start
    nbytes: int
    head: int  # bytes of the head, 0 without it
    row: int  # of the layers wanted
    layer: int
    layers: int  # may be none


class _Copy(NamedTuple):
    """How one tensor of a block's bytes goes to where all blocks' rows are."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes, the layers' first
    offset: int  # bytes from a layer's start
    by_row: bool


class BlockLoader:
    """Loads the blocks of one store. Safe to use from several threads."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity
        self._starting = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._buffers: list[bytearray] = []  # each of PIECE bytes, kept: fresh memory costs more than reading

    def load(self, entries: Sequence[Entry], layers: Sequence[int] | None, threads: int, *, pin: bool) -> Loaded:
        """See BlockStore.load."""
        job = _Job(self.identity, entries, layers, pin=pin)
        order = sorted(range(len(entries)), key=lambda i: (entries[i].segment, entries[i].offset))
        if job.layer_bytes < WORTH or threads <= 1:
            self._read(job, _runs(job, order))
            return job.result()
        shares = min(threads, THREADS, len(entries))
        cuts = [round(n * len(order) / shares) for n in range(shares + 1)]
        parts = [_runs(job, order[a:b]) for a, b in pairwise(cuts)]
        for done in [self._threads().submit(self._read, job, part) for part in parts]:
            done.result()
        return job.result()

    def close(self) -> None:
        """End the threads."""
        with self._starting:
            if self._pool is not None:
                self._pool.shutdown()

    def _threads(self) -> ThreadPoolExecutor:
        """Started when first needed."""
        with self._starting:
            self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="load")
            return self._pool

    @contextmanager
    def _buffer(self, nbytes: int) -> Iterator[bytearray]:
        """Memory to read into."""
        if nbytes > PIECE:
            yield bytearray(nbytes)
            return
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = bytearray(PIECE)
        yield buffer
        self._buffers.append(buffer)

    def _read(self, job: _Job, runs: Sequence[Sequence[_Part]]) -> None:
        """Read and take runs of a job."""
        sizes = [run[-1].offset + run[-1].nbytes - run[0].offset for run in runs]
        with ExitStack() as stack, self._buffer(max(sizes)) as buffer:
            files = _Files(self.folder, stack)
            told = lead = 0  # runs announced, and their bytes that are not yet read
            for run, size in zip(runs, sizes, strict=True):
                while told < len(runs) and lead < AHEAD:
                    files.announce(job.entries[runs[told][0].entry], runs[told][0].offset, sizes[told])
                    lead += sizes[told]
                    told += 1
                path = files.read(job.entries[run[0].entry], memoryview(buffer)[:size], run[0].offset)
                lead -= size
                for part in run:
                    job.take(part, buffer, part.offset - run[0].offset, path)


class _Files:
    """The segments that one thread reads, each opened when it is first needed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack  # closes them
        self._files: dict[int, tuple[int, Path]] = {}
        self._announced = (-1, -1)  # segment and end of what was announced last

    def announce(self, entry: Entry, offset: int, nbytes: int) -> None:
        """Have the disk begin with what is read soon. What follows on what comes before it, the system foresees."""
        segment, end = self._announced
        self._announced = entry.segment, offset + nbytes
        if (segment != entry.segment or offset - end > NEAR) and sys.platform != "darwin":  # macOS has no posix_fadvise
            fd, path = self._opened(entry)
            with reading(path, entry):
                os.posix_fadvise(fd, offset, nbytes, os.POSIX_FADV_WILLNEED)

    def read(self, entry: Entry, view: memoryview, offset: int) -> Path:
        """Fill `view` from where `entry` or some of it lies; returns the file's path."""
        fd, path = self._opened(entry)
        with reading(path, entry):
            read_all(fd, [view], offset, str(path))
        return path

    def _opened(self, entry: Entry) -> tuple[int, Path]:
        found = self._files.get(entry.segment)
        if found is None:
            path = segment_path(self._folder, entry.segment)
            with reading(path, entry):
                found = self._files[entry.segment] = self._stack.enter_context(opened(path)), path
        return found


class _Job:
    """What is wanted, and what there is of it so far. Its parts are taken by several threads, each block by one."""

    def __init__(
        self, identity: Identity, entries: Sequence[Entry], layers: Sequence[int] | None, *, pin: bool
    ) -> None:
        self.identity = identity
        self.entries = entries
        self.layers = range(identity.shape.layers) if layers is None else layers
        tokens = [entry.tokens for entry in entries]
        self._first_rows = list(accumulate(tokens, initial=0))
        joined = LayerLayout.of(identity.codec, identity.shape, self._first_rows[-1])
        self._tensors = _room(joined, len(self.layers), len(entries), pin=pin)
        self._arrays = {name: tensor.numpy() for name, tensor in self._tensors.items()}
        self._copies: dict[int, tuple[int, list[_Copy]]] = {}
        self._pieces: dict[int, list[tuple[int, int, int]]] = {}
        for n in set(tokens):
            layout = LayerLayout.of(identity.codec, identity.shape, n)
            self._copies[n] = (layout.nbytes, _copies(layout, self._arrays))
            parted = pieces(self.layers, max(1, PIECE // layout.nbytes))
            rows = accumulate((count for _, count in parted), initial=0)
            self._pieces[n] = sorted(((layer, count, row) for row, (layer, count) in zip(rows, parted, strict=False)))
        self.layer_bytes = max(size for size, _ in self._copies.values())
        self._heads: list[Head | None] = [None] * len(entries)

    def parts(self, index: int) -> Iterator[_Part]:
        """What must be read of a block, in the order of the file: its head first."""
        entry = self.entries[index]
        size = self._copies[entry.tokens][0]
        head = entry.payload
        for layer, count, row in self._pieces[entry.tokens]:
            if head and (layer > 0 or head + count * size > PIECE):
                yield _Part(index, entry.offset, head, head, 0, 0, 0)
                head = 0
            offset = entry.offset + entry.payload + layer * size - head
            yield _Part(index, offset, head + count * size, head, row, layer, count)
            head = 0

    def take(self, part: _Part, buffer: bytearray, at: int, path: Path) -> None:
        """Check a part, which lies in `buffer` from byte `at` on, and put it where it belongs.

        Raises:
            CorruptError: a checksum fails, or another record or none is at that place.
        """
        entry = self.entries[part.entry]
        view = memoryview(buffer)
        if part.head:
            head = head_of(bytes(view[at : at + part.head]), entry, self.identity, path)
            if head.tokens != entry.tokens:
                raise CorruptError(path, f"block {entry.id} has {head.tokens} rows, the catalogue says {entry.tokens}")
            self._heads[part.entry] = head
        if not part.layers:
            return
        found = self._heads[part.entry]
        assert found is not None
        size, copies = self._copies[entry.tokens]
        first = at + part.head
        layers = range(part.layer, part.layer + part.layers)
        check_layers(found, layers, [view[i : i + size] for i in range(first, at + part.nbytes, size)], str(path))
        self._copy(part, copies, buffer, first)

    def _copy(self, part: _Part, copies: Sequence[_Copy], buffer: bytearray, at: int) -> None:
        rows = slice(self._first_rows[part.entry], self._first_rows[part.entry + 1])
        layers = slice(part.row, part.row + part.layers)
        for name, dtype, shape, strides, offset, by_row in copies:
            source: NDArray[Any] = np.ndarray((part.layers, *shape), dtype, buffer, at + offset, strides)
            self._arrays[name][layers, :, rows if by_row else part.entry] = source

    def result(self) -> Loaded:
        """Everything, decoded."""
        heads = [head for head in self._heads if head is not None]
        assert len(heads) == len(self.entries)
        keys, values = decode_joined(self.identity.codec, self._tensors, [head.tokens for head in heads])
        flat = torch.frombuffer(bytearray(b"".join(head.positions for head in heads)), dtype=torch.int64)
        extents = [head.extent for head in heads]
        positions = following(flat.view(-1, 3), [head.tokens for head in heads], extents)
        run = BlockRun(keys, values, positions, sum(extents))
        return Loaded(run, tuple(head.picture for head in heads))


def _room(joined: LayerLayout, layers: int, blocks: int, *, pin: bool) -> dict[str, Tensor]:
    """Memory for the parts of all blocks end to end.

    In one piece: glibc gives several large ones back to the system each time, and getting them again costs more than
    reading into them.
    """
    shapes = [part.shape if part.by_row else (part.shape[0], blocks, *part.shape[1:]) for part in joined.parts]
    sizes = [layers * math.prod(s) * p.dtype.itemsize for s, p in zip(shapes, joined.parts, strict=True)]
    starts = list(accumulate((align(size, ALIGN) for size in sizes), initial=0))
    whole = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pin)
    return {
        part.name: whole[start : start + size].view(part.dtype).view(layers, *shape)
        for part, shape, start, size in zip(joined.parts, shapes, starts, sizes, strict=False)
    }


def _copies(layout: LayerLayout, arrays: dict[str, NDArray[Any]]) -> list[_Copy]:
    found = []
    for part in layout.parts:
        dtype = arrays[part.name].dtype
        inner = [dtype.itemsize]
        for size in part.shape[:0:-1]:
            inner.append(inner[-1] * size)
        found.append(_Copy(part.name, dtype, part.shape, (layout.nbytes, *reversed(inner)), part.offset, part.by_row))
    return found


def _runs(job: _Job, indices: Sequence[int]) -> list[list[_Part]]:
    """The parts of these blocks, in runs that one read of at most PIECE bytes covers, unless one alone is larger."""
    runs: list[list[_Part]] = []
    segment = start = stop = -1
    for index in indices:
        for part in job.parts(index):
            near = job.entries[index].segment == segment and part.offset - stop <= NEAR
            if near and part.offset + part.nbytes - start <= PIECE:
                runs[-1].append(part)
            else:
                runs.append([part])
                segment, start = job.entries[index].segment, part.offset
            stop = part.offset + part.nbytes
    return runs
