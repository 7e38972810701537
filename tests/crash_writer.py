"""Killing a writing process many times, and looking at what it leaves: `python crash_writer.py FOLDER ROUNDS SEED`.

Each round forks a writer, which tells through a pipe which blocks have been committed, and ends it by SIGKILL: half of
the time after a random delay, half of the time in the middle of one of its own system calls, a write cut short. Prints
what it saw as JSON; fails on the first block that is missing or wrong.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stored import SHAPE, assert_is, block, fingerprint

from streamvlm import BlockStore, StoreOptions
from streamvlm.memory import segment

ROUNDS_PER_STORE = 10
LONGEST_DELAY = 0.06  # seconds
MOST_CALLS = 50
IDS = struct.Struct("<QQ")
PLAIN = StoreOptions(segment_bytes=96 << 10)
WITH_QUOTA = StoreOptions(quota=512 << 10)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_call(chance: random.Random) -> None:
    """Make one of the coming system calls of the store the last."""
    left = [chance.randint(1, MOST_CALLS)]

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] > 0:
                return call(*args, **named)
            if call is pwritev:
                descriptor, buffers, offset = args
                data = b"".join(buffers)
                os.pwrite(descriptor, data[: chance.randrange(len(data) + 1)], offset)
            elif chance.random() < 0.5:
                call(*args, **named)
            return die()

        return wrapped

    pwritev = os.pwritev
    for name in ("pwritev", "fsync", "ftruncate", "truncate", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    segment._sync_data = deadly(segment._sync_data)


def write(folder: Path, options: StoreOptions, report: int, chance: random.Random) -> None:
    """Store blocks until killed. The number of a block stands in its text."""
    number = chance.randrange(10**6)
    store = BlockStore.open(folder, fingerprint(), SHAPE, options=options)
    while True:
        numbers = {}
        for _ in range(chance.randint(1, 4)):
            block_id = store.put(block(number))
            if block_id is not None:
                numbers[block_id] = number
            number += 1
        for entry in store.commit():
            os.write(report, IDS.pack(entry.id, numbers[entry.id]))


def kill_one(folder: Path, options: StoreOptions, chance: random.Random) -> dict[int, int]:
    """Run a writer until it is killed; the numbers of the blocks it said were committed, by id."""
    reading, writing = os.pipe()
    delay = chance.random() * LONGEST_DELAY if chance.random() < 0.5 else None
    child = os.fork()
    if child == 0:
        if delay is None:
            die_in_a_call(chance)
        write(folder, options, writing, chance)
    os.close(writing)
    if delay is not None:
        select.select([], [], [], delay)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the writer failed by itself: {status}"
    whole = len(said) - len(said) % IDS.size
    return dict(IDS.iter_unpack(said[:whole]))


def check(store: BlockStore, committed: dict[int, int], quota: bool) -> None:
    """Everything committed is there, unless the quota dropped it, and everything there is right."""
    there = {entry.id: int(entry.text.split()[0]) for entry in store.blocks()}
    first = min(there, default=0) if quota else 0
    for block_id, number in committed.items():
        assert block_id < first or there[block_id] == number, f"block {block_id} was lost"
    for got in store.read(list(there)):
        assert_is(got, there[got.id])
    assert store.verify() == []
    assert store.recovered.lost_blocks == 0


def main(folder: Path, rounds: int, seed: int) -> None:
    """Kill `rounds` writers and print what was seen."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    seen = {"kills": 0, "committed": 0, "recovered": 0, "truncated": 0}
    committed: dict[int, int] = {}
    path, options = folder, PLAIN
    for i in range(rounds):
        if i % ROUNDS_PER_STORE == 0:
            shutil.rmtree(path, ignore_errors=True)
            path, committed = folder / str(i), {}
            options = WITH_QUOTA if i // ROUNDS_PER_STORE % 2 else PLAIN
            BlockStore.create(path, fingerprint(), SHAPE, options).close()
        newly = kill_one(path, options, random.Random(chance.random()))
        with BlockStore.open(path, fingerprint(), SHAPE, options=options) as store:
            committed |= newly
            check(store, committed, options.quota is not None)
            seen["recovered"] += store.recovered.added_blocks
            seen["truncated"] += store.recovered.truncated_bytes > 0
        seen["kills"] += 1
        seen["committed"] += len(newly)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
