"""Reading everything a store holds to see whether it is still what was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamvlm.errors import StoreError
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.reading import BlockReader
from streamvlm.memory.recovery import headers
from streamvlm.memory.segment import segment_path


@dataclass(frozen=True, slots=True)
class Problem:
    """Something damaged."""

    path: str
    block: int | None  # None for a segment's header
    what: str


def check_blocks(reader: BlockReader, entries: Iterable[Entry]) -> list[Problem]:
    """Check the header of every segment, and head, layers, footer and picture of every block."""
    problems = [
        Problem(str(segment_path(reader.folder, number)), None, "the segment's header is damaged")
        for number, header in headers(reader.folder).items()
        if header is None
    ]
    for entry in entries:
        try:
            reader.encoded(entry)
            reader.picture(entry)
        except StoreError as error:
            problems.append(Problem(error.path, entry.id, error.cause))
    return problems
