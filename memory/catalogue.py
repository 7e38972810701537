"""The catalogue: which blocks there are and where. A block that is not in it does not exist."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from streamvlm.errors import StoreError
from streamvlm.memory.blocks import About
from streamvlm.memory.records import RecordLayout
from streamvlm.memory.segment import PRIVATE
from streamvlm.types import Kind

NAME = "index.sqlite"
_CHUNK = 500  # ids in one query
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    payload INTEGER NOT NULL, tokens INTEGER NOT NULL, extent INTEGER NOT NULL, kind INTEGER NOT NULL,
    start REAL NOT NULL, stop REAL NOT NULL, stream TEXT NOT NULL, text TEXT NOT NULL, codec TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS blocks_segment ON blocks (segment, offset, length);
CREATE INDEX IF NOT EXISTS blocks_start ON blocks (start);
CREATE INDEX IF NOT EXISTS blocks_seconds ON blocks (stop - start);
"""
_SPAN = "start < ? AND start >= ? AND (stop > ? OR start >= ?)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of the catalogue."""

    id: int
    segment: int
    offset: int  # bytes from the segment's start
    length: int  # bytes of the record
    payload: int  # bytes from the record's start to its first layer
    tokens: int
    extent: int
    kind: Kind
    start: float  # seconds
    stop: float
    stream: str
    text: str
    codec: str

    @classmethod
    def of(cls, block_id: int, about: About, place: tuple[int, int], layout: RecordLayout, codec: str) -> Entry:
        """The entry of a record at `place`, (segment, offset)."""
        return cls(
            block_id,
            *place,
            layout.length,
            layout.payload,
            len(about),
            about.extent,
            about.kind,
            about.start,
            about.stop,
            about.stream,
            about.text,
            codec,
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the catalogue."""

    blocks: int
    tokens: int
    start: float  # seconds; 0 when empty
    stop: float


_COLUMNS = ", ".join(f.name for f in fields(Entry))
_row = attrgetter(*(f.name for f in fields(Entry)))  # dataclasses.astuple copies deeply
_INSERT = f"INSERT INTO blocks ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Entry)))})"


class Catalogue:
    """SQLite in WAL mode: one writer, and readers that never wait for it. Safe to use from several threads.

    Commits are not synced one by one: a record is synced before its entry is written, and recovery finds the records
    whose entries were lost.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.path = folder / NAME
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        with self._errors():
            if not readonly:
                os.close(os.open(self.path, os.O_CREAT | os.O_CLOEXEC, PRIVATE))
                self._writer = self._connect("rwc")
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute("PRAGMA synchronous=NORMAL")
                self._writer.executescript(_SCHEMA)
            self._reader = self._connect("ro")

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self.path, str(error)) from error

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing."""
        assert self._writer is not None
        with self._writing, self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _query(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._errors():
            return self._reader.execute(sql, values).fetchall()

    def _entries(self, where: str, values: Sequence[object]) -> list[Entry]:
        rows = self._query(f"SELECT {_COLUMNS} FROM blocks WHERE {where}", values)
        return [_entry(row) for row in rows]

    def add(self, entries: Iterable[Entry], meta: dict[str, str] | None = None) -> None:
        """Enter blocks and facts, all or none."""
        with self._change() as change:
            change.executemany(_INSERT, [_row(entry) for entry in entries])
            change.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list((meta or {}).items()))

    def remove(self, ids: Sequence[int]) -> None:
        """Forget blocks."""
        with self._change() as change:
            change.executemany("DELETE FROM blocks WHERE id = ?", [(i,) for i in ids])

    def remove_segment(self, segment: int) -> tuple[int, int]:
        """Forget all blocks of a segment and remember how much was dropped; returns (blocks, tokens)."""
        with self._change() as change:
            row = change.execute("SELECT COUNT(*), TOTAL(tokens) FROM blocks WHERE segment = ?", (segment,)).fetchone()
            blocks, tokens = int(row[0]), int(row[1])
            change.execute("DELETE FROM blocks WHERE segment = ?", (segment,))
            for key, number in (("segments", 1), ("blocks", blocks), ("tokens", tokens)):
                change.execute(
                    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value",
                    (f"dropped_{key}", str(number)),
                )
        return blocks, tokens

    def meta(self, key: str) -> str | None:
        """A remembered fact."""
        rows = self._query("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def find(self, ids: Sequence[int]) -> dict[int, Entry]:
        """Those of `ids` that exist."""
        found: dict[int, Entry] = {}
        for i in range(0, len(ids), _CHUNK):
            part = list(ids[i : i + _CHUNK])
            entries = self._entries(f"id IN ({', '.join('?' * len(part))})", part)
            found |= {entry.id: entry for entry in entries}
        return found

    def span(self, start: float, stop: float, stream: str | None = None) -> list[Entry]:
        """Blocks that overlap [start, stop) seconds, in order of time."""
        longest = self._query("SELECT MAX(stop - start) FROM blocks")[0][0]
        reach = start - (longest or 0.0)  # no earlier block can last until `start`: keeps the search short
        where = _SPAN + ("" if stream is None else " AND stream = ?") + " ORDER BY start, id"
        values: list[object] = [stop, reach, start, start]
        return self._entries(where, values if stream is None else [*values, stream])

    def near(self, time: float) -> Entry | None:
        """The newest frames that began by `time`, else the first ones after it."""
        values = (int(Kind.VISION), time)
        found = self._entries("kind = ? AND start <= ? ORDER BY start DESC LIMIT 1", values)
        found = found or self._entries("kind = ? AND start > ? ORDER BY start LIMIT 1", values)
        return found[0] if found else None

    def after(self, block_id: int, limit: int = _CHUNK) -> list[Entry]:
        """The next blocks with an id above `block_id`, in order."""
        return self._entries("id > ? ORDER BY id LIMIT ?", (block_id, limit))

    def within(self, segment: int, end: int = 0) -> list[Entry]:
        """Blocks of a segment that reach beyond byte `end`, in order."""
        return self._entries("segment = ? AND offset + length > ? ORDER BY offset", (segment, end))

    def ends(self) -> dict[int, int]:
        """Where the last block of each segment ends, in bytes."""
        rows = self._query("SELECT segment, MAX(offset + length) FROM blocks GROUP BY segment")
        return dict(rows)

    def last_id(self) -> int:
        """The highest id, -1 when empty."""
        return int(self._query("SELECT COALESCE(MAX(id), -1) FROM blocks")[0][0])

    def totals(self) -> Totals:
        """Sums over all blocks."""
        sql = "SELECT COUNT(*), TOTAL(tokens), COALESCE(MIN(start), 0), COALESCE(MAX(stop), 0) FROM blocks"
        blocks, tokens, start, stop = self._query(sql)[0]
        return Totals(int(blocks), int(tokens), start, stop)

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._writing:
            self._reader.close()
            if self._writer is not None:
                self._writer.close()


def _entry(row: tuple[Any, ...]) -> Entry:
    block_id, segment, offset, length, payload, tokens, extent, kind, *rest = row
    start, stop, stream, text, codec = rest
    return Entry(
        block_id, segment, offset, length, payload, tokens, extent, Kind(kind), start, stop, stream, text, codec
    )
