"""Notes: what was written down about a stream, line by line, searchable by its words.

They live in memory, where a search takes no longer than a step may wait, and are copied to a file by a thread of their
own, so that the disk is never waited for.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from streamvlm.errors import StoreError

logger = logging.getLogger(__name__)

NoteKind = Literal["observation", "hypothesis", "answer", "chapter"]
KINDS: tuple[NoteKind, ...] = get_args(NoteKind)
NAME = "notes.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY, start REAL NOT NULL, stop REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
    parts TEXT NOT NULL
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text, content='notes', content_rowid='id', tokenize='porter');
CREATE TRIGGER IF NOT EXISTS entered AFTER INSERT ON notes BEGIN
    INSERT INTO words (rowid, text) VALUES (new.id, new.text);
END;
"""
_COLUMNS = "notes.id, start, stop, kind, notes.text, parts"
# Words that every question has and no note is about.
_FILLING = (
    "a an and any are at be been by can did do does for from had has have he her his how i in is it its many me much "
    "of on or say she that the their them then there these they this to was we were what when where which who why "
    "will with you"
)
_COMMON = frozenset(_FILLING.split())


@dataclass(frozen=True, slots=True)
class Note:
    """One line about a stretch of a stream."""

    id: int
    start: float  # seconds
    stop: float
    kind: NoteKind  # seen, supposed, answered, or a summary of others: a guess must not harden into a fact
    text: str
    parts: tuple[int, ...] = ()  # ids of the notes that a chapter sums up
    score: float = 0.0  # BM25 of the search that found it, higher is better; 0 where nothing was searched for

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if not self.text.strip() or not 0 <= self.start <= self.stop:
            raise ValueError(f"a note needs text and 0 <= start <= stop, got {self.text!r}, {self.start}, {self.stop}")


class Notes:
    """All notes of one stream. Every method may be called from any thread.

    Raises:
        StoreError: `path`, a file that is there, holds no notes.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._live = sqlite3.connect(":memory:", check_same_thread=False)
        self._live.executescript(_SCHEMA)
        self._path = path
        self._writer = None if path is None else ThreadPoolExecutor(1, thread_name_prefix="streamvlm-notes")
        self.unwritten = 0  # notes that the disk did not take
        if path is not None:
            for note in _read(path):
                self._insert(self._live, note)

    def add(self, start: float, stop: float, kind: NoteKind, text: str, parts: Sequence[int] = ()) -> Note:
        """Write a line down. Never waits for the disk."""
        with self._lock:
            (last,) = self._live.execute("SELECT coalesce(max(id), 0) FROM notes").fetchone()
            note = Note(last + 1, start, stop, kind, " ".join(text.split()), tuple(parts))
            self._insert(self._live, note)
            if self._writer is not None:
                self._writer.submit(self._write, note)
        return note

    def find(
        self,
        query: str | None = None,
        *,
        between: tuple[float, float] | None = None,
        kinds: Collection[NoteKind] = KINDS,
        limit: int = 20,
    ) -> tuple[Note, ...]:
        """The notes that match `query` best (BM25), or without one the newest; at most `limit`, oldest first.

        `between` is a stretch of stream time [start, stop) that they must touch.
        """
        words = [] if query is None else _words(query)
        if query is not None and not words:
            return ()
        start, stop = between or (float("-inf"), float("inf"))
        where = f"start < ? AND stop >= ? AND kind IN ({','.join('?' * len(kinds))})"
        if words:
            sql = (
                f"SELECT {_COLUMNS}, -bm25(words) AS score FROM words JOIN notes ON notes.id = words.rowid "
                f"WHERE words MATCH ? AND {where} ORDER BY score DESC, notes.id DESC LIMIT ?"
            )
            values = [" OR ".join(f'"{word}"' for word in words), stop, start, *kinds, limit]
        else:
            sql = f"SELECT {_COLUMNS}, 0.0 FROM notes WHERE {where} ORDER BY start DESC, id DESC LIMIT ?"
            values = [stop, start, *kinds, limit]
        with self._lock:
            rows = self._live.execute(sql, values).fetchall()
        return tuple(sorted((_note(row) for row in rows), key=lambda note: (note.start, note.id)))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._live.execute("SELECT count(*) FROM notes").fetchone()
        return int(count)

    def close(self) -> None:
        """Wait until all is on the disk."""
        if self._writer is not None:
            self._writer.shutdown(wait=True)

    def _write(self, note: Note) -> None:
        assert self._path is not None
        try:
            with _open(self._path) as connection:
                self._insert(connection, note)
            connection.close()
        except (sqlite3.Error, OSError) as error:  # a full disk: it stays in memory
            self.unwritten += 1
            logger.warning("a note is not on the disk: %s", error)

    @staticmethod
    def _insert(connection: sqlite3.Connection, note: Note) -> None:
        row = (note.id, note.start, note.stop, note.kind, note.text, json.dumps(note.parts))
        connection.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?)", row)


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what was seen is nobody else's business
    connection = sqlite3.connect(path)
    connection.executescript(_SCHEMA)
    return connection


def _read(path: Path) -> Iterator[Note]:
    if not path.exists():
        return
    try:
        connection = _open(path)
        rows = connection.execute(f"SELECT {_COLUMNS}, 0.0 FROM notes ORDER BY id").fetchall()
        connection.close()
    except sqlite3.Error as error:
        raise StoreError(path, f"no notes can be read: {error}") from None
    yield from map(_note, rows)


def _note(row: tuple[int, float, float, NoteKind, str, str, float]) -> Note:
    number, start, stop, kind, text, parts, score = row
    return Note(number, start, stop, kind, text, tuple(json.loads(parts)), score)


def _words(query: str) -> list[str]:
    return [word for word in re.findall(r"\w+", query.lower()) if word not in _COMMON]
