"""What a store holds and what has happened to it, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from streamvlm.memory.catalogue import Catalogue
from streamvlm.memory.log import WriteCounts
from streamvlm.memory.recovery import Recovered


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds and what has happened to it."""

    blocks: int
    tokens: int
    segments: int
    bytes: int  # of all segments
    start: float  # seconds of stream time; 0 when empty
    stop: float
    dropped_segments: int  # for the quota, ever
    dropped_blocks: int
    dropped_tokens: int
    refused_blocks: int  # since it was opened: the disk was full
    refused_tokens: int
    failed_commits: int
    recovered_blocks: int  # when it was opened: whole and not yet in the catalogue
    lost_blocks: int  # in the catalogue and no longer on the disk
    truncated_bytes: int  # torn records
    damaged_headers: int

    @classmethod
    def of(cls, catalogue: Catalogue, sizes: dict[int, int], counts: WriteCounts, recovered: Recovered) -> StoreStats:
        """Put together what the parts of a store know."""
        totals = catalogue.totals()
        segments, blocks, tokens = (int(catalogue.meta(f"dropped_{n}") or 0) for n in ("segments", "blocks", "tokens"))
        return cls(
            totals.blocks,
            totals.tokens,
            len(sizes),
            sum(sizes.values()),
            totals.start,
            totals.stop,
            segments,
            blocks,
            tokens,
            counts.refused_blocks,
            counts.refused_tokens,
            counts.failed_commits,
            recovered.added_blocks,
            recovered.lost_blocks,
            recovered.truncated_bytes,
            len(recovered.damaged_headers),
        )
