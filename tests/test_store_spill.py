"""Spilling: what is offered is stored in the background, or dropped and counted; it never waits and never raises."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stored import assert_is, block, fresh, present

from streamvlm import BlockStore, KVBlock, StoreError
from streamvlm.memory.catalogue import Entry
from streamvlm.memory.pinned import RingSpace
from streamvlm.memory.records import Encoded
from streamvlm.memory.spill import Spiller, SpillOptions

PATIENCE = 240.0  # seconds; only a failing test waits that long
NEVER = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    with fresh(tmp_path / "m") as made:
        yield made


class Gate:
    """Stands in for a slow disk: puts wait until it is opened."""

    def __init__(self, store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self._put = store.put
        monkeypatch.setattr(store, "put", self.put)

    def put(self, offered: KVBlock | Encoded) -> int | None:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        return self._put(offered)


def check_accounts(spiller: Spiller, offered: int) -> None:
    stats = spiller.stats
    assert stats.offered_blocks == offered
    assert stats.offered_tokens == sum(len(block(number)) for number in range(offered))
    assert (stats.pending_blocks, stats.pending_tokens, stats.pending_bytes) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_leaves_nothing_uncounted(store: BlockStore) -> None:
    def broken(made: KVBlock, note: object) -> tuple[KVBlock, object]:
        raise AssertionError(f"{note} of {made}")

    spiller = Spiller(store, SpillOptions(commit_blocks=8), prepare=broken)
    for number in range(30):
        spiller.offer(block(number), note=number)
    assert spiller.drain(PATIENCE) and spiller.close(PATIENCE)
    check_accounts(spiller, 30)
    assert spiller.stats.dropped_blocks == 30


def test_everything_offered_is_stored_with_its_note(store: BlockStore) -> None:
    stored: list[tuple[Entry, object]] = []
    spiller = Spiller(store, SpillOptions(commit_blocks=8), on_stored=stored.extend)
    for number in range(30):
        assert spiller.offer(block(number), note=number)
    assert spiller.drain(PATIENCE)
    check_accounts(spiller, 30)
    assert spiller.stats.stored_blocks == 30
    assert [entry.id for entry, _ in stored] == present(store)
    for entry, note in stored:
        assert isinstance(note, int)
        assert_is(store.get(entry.id), note)
    assert spiller.close(PATIENCE)


def test_a_full_queue_drops_and_does_not_wait(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    spiller = Spiller(store, SpillOptions(queue_bytes=3 * block(20).nbytes))
    assert spiller.offer(block(20))
    assert gate.entered.wait(PATIENCE)
    accepted = [spiller.offer(block(20)) for _ in range(10)]
    assert accepted == [True, True] + [False] * 8, "what is being written counts too"
    assert spiller.stats.dropped_blocks == 8
    assert spiller.stats.dropped_tokens == 8 * len(block(20))
    assert not spiller.drain(0.0)
    gate.open.set()
    assert spiller.drain(PATIENCE)
    assert spiller.stats.stored_blocks == 3
    assert spiller.offer(block(20))
    assert spiller.close(PATIENCE)
    assert len(present(store)) == 4


def test_commits_are_grouped(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    commit = store.commit

    def counted() -> list[Entry]:
        commits.append(1)
        return commit()

    monkeypatch.setattr(store, "commit", counted)
    spiller = Spiller(store, SpillOptions(commit_blocks=10, commit_seconds=NEVER))
    for number in range(25):
        spiller.offer(block(number))
    assert spiller.close(PATIENCE)
    assert len(commits) == 3
    assert len(present(store)) == 25


def test_a_lone_block_is_committed_after_a_while(store: BlockStore) -> None:
    stored = threading.Event()
    spiller = Spiller(store, SpillOptions(commit_seconds=0.05), on_stored=lambda _: stored.set())
    spiller.offer(block(0))
    assert stored.wait(PATIENCE)
    assert spiller.close(PATIENCE)


def test_what_goes_wrong_is_counted(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    spiller = Spiller(store)
    broken = block(1)
    broken.keys[0, 0, 0, 0] = torch.nan
    for offered in (block(0), broken, block(2)):
        assert spiller.offer(offered)
    assert spiller.drain(PATIENCE)
    check_accounts(spiller, 3)
    assert (spiller.stats.stored_blocks, spiller.stats.dropped_blocks, spiller.stats.errors) == (2, 1, 1)

    def failing(_: KVBlock) -> int:
        raise StoreError(store.path, "cannot write: Input/output error")

    monkeypatch.setattr(store, "put", failing)
    spiller.offer(block(3))
    assert spiller.drain(PATIENCE)
    monkeypatch.undo()
    spiller.offer(block(4))
    assert spiller.close(PATIENCE)
    check_accounts(spiller, 5)
    assert (spiller.stats.stored_blocks, spiller.stats.dropped_blocks, spiller.stats.errors) == (3, 2, 2)


def test_a_block_that_cannot_be_prepared_costs_itself_alone(store: BlockStore) -> None:
    stored: list[tuple[Entry, object]] = []

    def prepare(made: KVBlock, note: object) -> tuple[KVBlock, object]:
        if note == 2:
            raise ValueError("no vectors")
        return replace(made, stream="porch"), f"{note} by {threading.current_thread().name}"

    spiller = Spiller(store, prepare=prepare, on_stored=stored.extend)
    for number in range(5):
        assert spiller.offer(block(number), note=number)
    assert spiller.close(PATIENCE)
    check_accounts(spiller, 5)
    assert (spiller.stats.stored_blocks, spiller.stats.dropped_blocks, spiller.stats.errors) == (4, 1, 1)
    assert [(entry.stream, note) for entry, note in stored] == [("porch", f"{n} by spill") for n in (0, 1, 3, 4)]


def test_blocks_of_a_failed_sync_count_as_dropped(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("streamvlm.memory.segment._sync_data", failing)
    spiller = Spiller(store)
    spiller.offer(block(0))
    assert spiller.drain(PATIENCE)
    assert (spiller.stats.stored_blocks, spiller.stats.dropped_blocks) == (0, 1)
    monkeypatch.undo()
    spiller.offer(block(1))
    assert spiller.close(PATIENCE)
    assert spiller.stats.stored_blocks == 1


def test_a_catalogue_that_fails_for_a_while_loses_nothing(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def failing(*_: object) -> None:
        failed.set()
        raise StoreError(store.path, "database or disk is full")

    monkeypatch.setattr(store.catalogue, "add", failing)
    spiller = Spiller(store, SpillOptions(commit_seconds=0.02))
    for number in range(3):
        spiller.offer(block(number))
    assert failed.wait(PATIENCE)
    assert spiller.stats.pending_blocks == 3
    monkeypatch.undo()
    assert spiller.drain(PATIENCE)
    assert spiller.stats.stored_blocks == 3
    assert present(store) == [0, 1, 2]
    assert spiller.close(PATIENCE)


def test_nothing_is_accepted_after_the_end(store: BlockStore) -> None:
    spiller = Spiller(store)
    assert spiller.close(PATIENCE)
    assert not spiller.offer(block(0))
    assert spiller.drain(PATIENCE)
    assert spiller.stats.dropped_blocks == 1


@pytest.mark.gpu
@pytest.mark.parametrize("codec", ["fp16", "int8", "fp32"])
def test_blocks_leave_the_device(tmp_path: Path, codec: str) -> None:
    device = torch.device("cuda")
    with fresh(tmp_path / "m", codec=codec) as store:
        notes: list[tuple[Entry, object]] = []
        spiller = Spiller(store, SpillOptions(queue_bytes=1 << 20), device=device, on_stored=notes.extend)
        for number in range(200):
            made = block(number)
            while not spiller.offer(replace(made, keys=made.keys.to(device), values=made.values.to(device)), number):
                spiller.drain(PATIENCE)
        assert spiller.close(PATIENCE)
        assert len(notes) == 200
        for entry, note in notes:
            assert isinstance(note, int)
            assert_is(store.get(entry.id), note, codec)


@pytest.mark.parametrize("size", [1000, 4096, 5000])
def test_the_ring_never_gives_the_same_bytes_twice(size: int) -> None:
    chance = random.Random(size)
    space = RingSpace(size)
    taken: list[tuple[int, int]] = []
    refused = 0
    for _ in range(2000):
        nbytes = chance.randint(1, size // 3)
        start = space.take(nbytes)
        if start is None:
            refused += 1
            space.release()
            taken.pop(0)
            continue
        assert start % 64 == 0
        assert start + nbytes <= size
        assert all(start + nbytes <= other or start >= end for other, end in taken)
        taken.append((start, start + nbytes))
        if chance.random() < 0.3:
            space.release()
            taken.pop(0)
    assert refused > 100
    assert RingSpace(size).take(size + 1) is None
    assert RingSpace(size).take(size) == 0
