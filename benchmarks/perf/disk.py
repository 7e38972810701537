"""Blocks read through a store against their bytes read plainly, from the same disk in the same run."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streamvlm import BlockStore, Entry

READ_BYTES = 128 << 20  # read at most, each way
AT_ONCE = 64  # blocks a question reads at most
CHUNK = 1 << 20  # of the plain read
ROUNDS = 25


def drop_cache(paths: Sequence[Path]) -> None:
    """Have the system forget what it holds of these files, so that the disk is read."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def plain_read(path: Path, start: int, nbytes: int) -> None:
    """Read bytes in order, for nothing."""
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while nbytes > 0:
            nbytes -= file.readinto(buffer[: min(CHUNK, nbytes)]) or nbytes


def rate(read: Callable[[], None], path: Path, nbytes: int, *, cold: bool) -> float:
    """Megabytes per second, once."""
    if cold:
        drop_cache([path])
    begun = time.perf_counter()
    read()
    return nbytes / (time.perf_counter() - begun) / 1e6


def compared(ways: dict[str, Callable[[], None]], path: Path, nbytes: int, *, cold: bool) -> dict[str, Any]:
    """Each way in turn, over and over: median rates, and medians over the rounds of what a way reaches of `plain`."""
    for read in ways.values():
        read()  # once, not to be counted: threads start, memory is taken, and without `cold` all is cached
    rounds = []
    for turn in range(ROUNDS):  # each way goes first as often as the others: memory just freed costs less to take again
        order = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
        rounds.append({name: rate(ways[name], path, nbytes, cold=cold) for name in order})
    found: dict[str, Any] = {"page_cache": "dropped before each read" if cold else "holds all of it"}
    for name in ways:
        found[f"{name}_mb_s"] = round(statistics.median(one[name] for one in rounds), 1)
    for name in [name for name in ways if name != "plain"]:
        found[f"{name}_over_plain"] = round(statistics.median(one[name] / one["plain"] for one in rounds), 3)
    return found


def reading(folder: Path) -> dict[str, Any]:
    """Blocks through the store, in order and scattered as a question's are, against their bytes read plainly.

    Scattered means 64 at a time from anywhere in the stretch. What the disk itself loses by that is told by a plain
    read of the same bytes, block by block in the order of the file (`plain_scattered`).
    """
    with BlockStore.open(folder / "blocks", readonly=True) as store:
        segment = next(store.blocks()).segment
        path = folder / "blocks" / f"seg-{segment:06d}.kv"
        entries: list[Entry] = []
        nbytes = 0
        for entry in store.blocks():
            if entry.segment != segment or nbytes > READ_BYTES:
                break
            entries.append(entry)
            nbytes += entry.length
        mixed = random.Random(0).sample(entries, len(entries))

        def stretches() -> None:
            with path.open("rb", buffering=0) as file:
                buffer = memoryview(bytearray(max(entry.length for entry in mixed)))
                for i in range(0, len(mixed), AT_ONCE):
                    for entry in sorted(mixed[i : i + AT_ONCE], key=lambda entry: entry.offset):
                        os.preadv(file.fileno(), [buffer[: entry.length]], entry.offset)

        def through(order: Sequence[Entry]) -> None:
            for i in range(0, len(order), AT_ONCE):
                store.load(order[i : i + AT_ONCE])

        ways: dict[str, Callable[[], None]] = {
            "plain": lambda: plain_read(path, entries[0].offset, nbytes),
            "store": lambda: through(entries),
            "scattered": lambda: through(mixed),
            "plain_scattered": stretches,
        }
        states = {name: compared(ways, path, nbytes, cold=name == "cold") for name in ("cold", "cached")}
    for found in states.values():
        found["scattered_over_plain_scattered"] = round(found["scattered_mb_s"] / found["plain_scattered_mb_s"], 3)
    return {"bytes": nbytes, "blocks": len(entries), **states}
