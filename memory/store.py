"""BlockStore: what left the window, on disk. One writer, any number of readers, in this process and in others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from streamvlm.errors import FingerprintError, StoreError
from streamvlm.memory.blocks import BlockShape, KVBlock
from streamvlm.memory.catalogue import NAME, Catalogue, Entry
from streamvlm.memory.checking import Problem, check_blocks
from streamvlm.memory.fingerprint import Fingerprint, Identity
from streamvlm.memory.loading import THREADS, BlockLoader, Loaded
from streamvlm.memory.log import SegmentLog, StoreOptions, WriteCounts
from streamvlm.memory.reading import BlockReader
from streamvlm.memory.records import Encoded
from streamvlm.memory.recovery import (
    LOCK,
    Recovered,
    headers,
    identify,
    lock,
    recover,
    sound_catalogue,
)
from streamvlm.memory.segment import segment_numbers, segment_path
from streamvlm.memory.stats import StoreStats


class BlockStore:
    """Blocks in append-only segments with a catalogue. Methods may be called from several threads."""

    def __init__(self, folder: Path, identity: Identity, catalogue: Catalogue) -> None:
        """Use `create` or `open`."""
        self.path = folder
        self.identity = identity
        self.catalogue = catalogue
        self.recovered = Recovered()
        self._reader = BlockReader(folder, identity)
        self._loader = BlockLoader(folder, identity)
        self._log: SegmentLog | None = None
        self._lock_fd: int | None = None
        self._writing = threading.RLock()

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a store at `path`."""
        return bool(segment_numbers(Path(path)))

    @classmethod
    def create(
        cls, path: str | Path, fingerprint: Fingerprint, shape: BlockShape, options: StoreOptions | None = None
    ) -> BlockStore:
        """A new store in an empty or new folder, which only its owner may enter.

        Raises:
            StoreError: the folder holds something, or cannot be written.
        """
        folder = Path(path)
        ours = (LOCK, NAME, f"{NAME}-wal", f"{NAME}-shm")  # a creation that was cut short
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(item.name not in ours and item.suffix != ".tmp" for item in folder.iterdir()):
                raise StoreError(folder, "is not empty; a new memory needs a folder of its own")
            folder.chmod(0o700)
            return cls._open_writer(folder, Identity(fingerprint, shape), options or StoreOptions())
        except OSError as error:
            raise StoreError(folder, f"cannot be created: {error.strerror}") from error

    @classmethod
    def open(
        cls,
        path: str | Path,
        fingerprint: Fingerprint | None = None,
        shape: BlockShape | None = None,
        *,
        options: StoreOptions | None = None,
        readonly: bool = False,
    ) -> BlockStore:
        """Open a store, to write it unless `readonly`. What a crash left behind is put in order by the writer.

        Raises:
            FingerprintError: it was made for another fingerprint or shape, or by another version of the format.
            StoreError: there is none, another process writes it, or it cannot be read.
        """
        folder = Path(path)
        if not cls.exists(folder):
            raise StoreError(folder, "holds no memory")
        try:
            store = cls._open_reader(folder) if readonly else cls._open_writer(folder, None, options or StoreOptions())
        except OSError as error:
            raise StoreError(folder, f"cannot be opened: {error.strerror}") from error
        stored = store.identity
        wanted = Identity(fingerprint or stored.fingerprint, shape or stored.shape)
        if stored != wanted:
            store.close()
            raise FingerprintError(folder, f"was written for something else: {stored.difference(wanted)}")
        return store

    @classmethod
    def _open_reader(cls, folder: Path) -> BlockStore:
        if not (folder / NAME).exists():
            raise StoreError(folder, "has no catalogue; open it for writing or rebuild it")
        catalogue = Catalogue(folder, readonly=True)
        store = cls(folder, identify(folder, catalogue), catalogue)
        store.recovered.damaged_headers = [n for n, header in headers(folder).items() if header is None]
        return store

    @classmethod
    def _open_writer(cls, folder: Path, identity: Identity | None, options: StoreOptions) -> BlockStore:
        with ExitStack() as undo:
            fd = lock(folder)
            undo.callback(os.close, fd)
            catalogue = Catalogue(folder) if identity else sound_catalogue(folder)
            undo.callback(catalogue.close)
            if identity is None:
                identity = identify(folder, catalogue)
            store = cls(folder, identity, catalogue)
            store.recovered = recover(folder, identity, catalogue)
            store._log = SegmentLog(folder, identity, options, catalogue)
            store._log.start(store.recovered)
            if catalogue.meta("identity") is None:
                catalogue.add([], {"identity": identity.to_json()})
            undo.pop_all()
        store._lock_fd = fd
        return store

    @property
    def readonly(self) -> bool:
        """Whether it was opened to read."""
        return self._log is None

    def put(self, block: KVBlock | Encoded) -> int | None:
        """Write a block; it exists once `commit` has returned its id. None when the disk is full (counted).

        Raises:
            ValueError: the block has another shape, or holds NaN or infinity.
            StoreError: the disk fails, or the store was opened to read.
        """
        if isinstance(block, KVBlock):
            if block.shape != self.identity.shape:
                raise ValueError(f"the block has {block.shape}, the store {self.identity.shape}")
            block = Encoded.of(block, self.identity.codec)
        with self._writing:
            return self._writer().put(block)

    def commit(self) -> list[Entry]:
        """Sync and catalogue what was put; returns what exists from now on. A failure is counted, and tried again."""
        with self._writing:
            return self._writer().commit()

    @property
    def waiting(self) -> frozenset[int]:
        """Ids of blocks that were put and may still be returned by `commit`."""
        with self._writing:
            return self._writer().waiting

    def gc(self, quota: int | None = None, before: float | None = None) -> int:
        """Drop the oldest segments beyond `quota` bytes and those that end before `before` seconds; bytes freed."""
        with self._writing:
            writer = self._writer()
            freed = 0
            writer.roll()
            while writer.sizes and self._superfluous(writer, quota, before):
                dropped = writer.drop_oldest()
                if not dropped:
                    break
                freed += dropped
            return freed

    def _superfluous(self, writer: SegmentLog, quota: int | None, before: float | None) -> bool:
        if quota is not None and writer.nbytes > quota:
            return True
        entries = self.catalogue.within(min(writer.sizes))
        return before is not None and all(entry.stop <= before for entry in entries)

    def get(self, block_id: int) -> KVBlock:
        """One block.

        Raises:
            CorruptError: a checksum fails.
            StoreError: it does not exist or cannot be read.
        """
        return self.read([block_id])[0]

    def read(self, ids: Sequence[int], layers: Sequence[int] | None = None) -> list[KVBlock]:
        """Blocks in the order of `ids`, with all layers or just `layers`; every layer read is checked.

        Raises:
            CorruptError, StoreError: as for `get`.
        """
        self._check_layers(layers)
        return [self._reader.read(entry, layers) for entry in self.entries(ids)]

    def load(
        self,
        entries: Sequence[Entry],
        layers: Sequence[int] | None = None,
        *,
        threads: int = THREADS,
        pin: bool = False,
    ) -> Loaded:
        """Blocks end to end, as a reader is given them, in the order of `entries`; every layer read is checked.

        Much faster than `read` for many. At most 16 threads read at a time. `pin`: into page-locked memory.

        Raises:
            CorruptError, StoreError: as for `get`.
            ValueError: no entries, or layers that are not there.
        """
        self._check_layers(layers)
        if not entries:
            raise ValueError("there must be a block to load, got no entries")
        return self._loader.load(entries, layers, threads, pin=pin)

    def _check_layers(self, layers: Sequence[int] | None) -> None:
        count = self.identity.shape.layers
        if layers is not None and not (layers and all(0 <= layer < count for layer in layers)):
            raise ValueError(f"layers must be within 0..{count - 1}, got {list(layers)}")

    def picture(self, entry: Entry) -> bytes:
        """The JPEG stored beside a block, read alone; empty if there is none. Raises as `get` does."""
        return self._reader.picture(entry)

    def picture_at(self, time: float) -> tuple[float, bytes] | None:
        """(seconds, JPEG) of the newest frames that began by `time`, else of the first. Raises as `get` does."""
        entry = self.catalogue.near(time)
        return None if entry is None else (entry.start, self.picture(entry))

    def encoded(self, entry: Entry) -> Encoded:
        """One block as it was written. Raises as `get` does."""
        return self._reader.encoded(entry)

    def entries(self, ids: Sequence[int]) -> list[Entry]:
        """What the catalogue knows of these blocks; StoreError if one does not exist."""
        found = self.catalogue.find(ids)
        missing = [i for i in ids if i not in found]
        if missing:
            raise StoreError(self.path, f"there is no block {', '.join(map(str, missing))}")
        return [found[i] for i in ids]

    def spans(self, start: float, stop: float, stream: str | None = None) -> list[Entry]:
        """Blocks that overlap [start, stop) seconds, in order of time."""
        return self.catalogue.span(start, stop, stream)

    def blocks(self, after: int = -1) -> Iterator[Entry]:
        """All blocks with an id above `after`, in order."""
        while entries := self.catalogue.after(after):
            yield from entries
            after = entries[-1].id

    def verify(self) -> list[Problem]:
        """Read everything and check every checksum; what is wrong."""
        return check_blocks(self._reader, self.blocks())

    def stats(self) -> StoreStats:
        """Counts."""
        sizes = {n: segment_path(self.path, n).stat().st_size for n in segment_numbers(self.path)}
        return StoreStats.of(self.catalogue, sizes, self._log.counts if self._log else WriteCounts(), self.recovered)

    def close(self) -> None:
        """Commit, and let another process write."""
        with self._writing:
            if self._log is not None:
                self._log.commit()
                self._log.close()
                self._log = None
            self._loader.close()
            self.catalogue.close()
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writer(self) -> SegmentLog:
        if self._log is None:
            raise StoreError(self.path, "is not open for writing")
        return self._log
