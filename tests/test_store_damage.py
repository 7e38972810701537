"""What happens when the disk loses, changes or refuses bytes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stored import SHAPE, assert_is, block, fill, fresh, present

from streamvlm import BlockStore, CorruptError, FingerprintError, StoreError, StoreOptions, rebuild_catalogue
from streamvlm.memory.codecs import LayerLayout
from streamvlm.memory.records import FOOTER_BYTES, PAGE, RecordLayout

HIT = 2  # the block whose record is damaged; others lie before and after it


def segment(folder: Path, number: int = 0) -> Path:
    return folder / f"seg-{number:06d}.kv"


def flip(path: Path, offset: int, bit: int = 3) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def regions(store: BlockStore) -> dict[str, range]:
    """Bytes of each part of the segment that holds block HIT."""
    entry = store.entries([HIT])[0]
    layer = LayerLayout.of("fp16", SHAPE, entry.tokens).nbytes
    layout = RecordLayout(entry.payload, layer, SHAPE.layers)
    at = entry.offset
    found = {"head": range(at, at + 150), "footer": range(at + layout.footer, at + layout.footer + FOOTER_BYTES)}
    for i in range(SHAPE.layers):
        start = at + layout.payload + i * layer
        found[f"layer {i}"] = range(start, start + layer)
    found["padding"] = range(at + layout.footer + FOOTER_BYTES, at + entry.length)
    found["header"] = range(100)
    return found


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A closed store of blocks 0..4."""
    with fresh(tmp_path / "m") as store:
        fill(store, range(5))
    return tmp_path / "m"


@pytest.mark.parametrize("region", ["head", "layer 0", "layer 1", "layer 2", "footer", "padding", "header"])
def test_a_flipped_bit_is_found_or_does_no_harm(made: Path, region: str) -> None:
    with BlockStore.open(made, readonly=True) as store:
        where = regions(store)[region]
    for offset in where[:: max(1, len(where) // 7)]:
        flip(segment(made), offset)
        with BlockStore.open(made) as store:
            assert present(store) == [0, 1, 2, 3, 4]
            for number in (0, 1, 3, 4):
                assert_is(store.get(number), number)
            check_hit(store, region)
        flip(segment(made), offset)
    with BlockStore.open(made) as store:
        assert store.verify() == []


def check_hit(store: BlockStore, region: str) -> None:
    """Block HIT is right or refused, and `verify` tells."""
    problems = store.verify()
    expected = {"padding": [], "header": [None]}.get(region, [HIT])
    assert [problem.block for problem in problems] == expected
    if region in ("padding", "header", "footer"):
        assert_is(store.get(HIT), HIT)
        return
    with pytest.raises(CorruptError, match=f"{region if 'layer' in region else 'head'}.*" if problems else ""):
        store.read([0, HIT])
    if region == "layer 1":
        assert_is(store.read([HIT], [0, 2])[0], HIT, layers=[0, 2])


@pytest.mark.parametrize("region", ["head", "layer 1", "footer", "padding"])
def test_a_rebuild_takes_nothing_damaged_and_everything_else(made: Path, region: str) -> None:
    with BlockStore.open(made, readonly=True) as store:
        where = regions(store)[region]
    flip(segment(made), where[len(where) // 2])
    result = rebuild_catalogue(made)
    intact = [0, 1, 2, 3, 4] if region == "padding" else [0, 1, 3, 4]
    assert result.blocks == len(intact)
    assert (result.damaged_bytes > 0) == (region != "padding")
    with BlockStore.open(made) as store:
        assert present(store) == intact
        for number in intact:
            assert_is(store.get(number), number)
        assert store.put(block(5)) == 5


def test_a_rebuilt_catalogue_equals_the_lost_one(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with fresh(folder, StoreOptions(segment_bytes=64 << 10)) as store:
        fill(store, range(60))
        before = list(store.blocks())
    for index in folder.glob("index.sqlite*"):
        index.unlink()
    with pytest.raises(StoreError, match="no catalogue"):
        BlockStore.open(folder, readonly=True)
    result = rebuild_catalogue(folder)
    assert (result.blocks, result.damaged_bytes) == (60, 0)
    assert result.segments > 2
    with BlockStore.open(folder, readonly=True) as store:
        assert list(store.blocks()) == before


@pytest.mark.parametrize("damage", [b"", b"not a database, whatever it was" * 200])
def test_a_lost_catalogue_is_made_anew_when_opened(made: Path, damage: bytes) -> None:
    for index in made.glob("index.sqlite-*"):
        index.unlink()
    (made / "index.sqlite").write_bytes(damage)
    with BlockStore.open(made) as store:
        assert present(store) == [0, 1, 2, 3, 4]
        assert store.verify() == []


def test_a_store_that_nothing_identifies_is_refused(made: Path) -> None:
    flip(segment(made), 40)
    (made / "index.sqlite").unlink()
    with pytest.raises(StoreError, match="no segment has a readable header"):
        BlockStore.open(made)


def test_another_version_of_the_format_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamvlm.memory.segment.VERSION", 3)
    with pytest.raises(FingerprintError, match="format version is 2, wanted 3"):
        BlockStore.open(made)


def test_writing_goes_on_after_a_damaged_header(made: Path) -> None:
    segment(made).write_bytes(b"")
    with BlockStore.open(made) as store:
        assert present(store) == []
        assert store.stats().lost_blocks == 5
        assert store.stats().damaged_headers == 1
        assert fill(store, range(5, 7)) == [5, 6], "into a segment of its own, under ids never used before"
    rebuild_catalogue(made)
    with BlockStore.open(made) as store:
        assert_is(store.get(6), 6)


@pytest.fixture
def uncommitted(tmp_path: Path) -> Path:
    """As a crash leaves it: block 0 committed, block 1 whole in the segment and not in the catalogue."""
    store = fresh(tmp_path / "live")
    fill(store, range(1))
    store.put(block(1))
    shutil.copytree(tmp_path / "live", tmp_path / "left")
    store.close()
    return tmp_path / "left"


def each_half_kilobyte(folder: Path) -> Iterator[tuple[Path, int]]:
    """A copy of the store for every multiple of 512 bytes within its last record, and that offset."""
    size = segment(folder).stat().st_size
    for offset in range(size - PAGE, size + 1, 512):
        copy = folder.with_name(f"cut{offset}")
        shutil.copytree(folder, copy)
        yield copy, offset


def record_end(folder: Path, number: int) -> int:
    """Where the footer of a small block ends, in the segment, if its record is the last one."""
    layer = LayerLayout.of("fp16", SHAPE, len(block(number))).nbytes
    with BlockStore.open(shutil.copytree(folder, folder.with_name("probe"))) as store:
        entry = store.entries([number])[0]
    return entry.offset + RecordLayout(entry.payload, layer, SHAPE.layers).footer + FOOTER_BYTES


def check_left(folder: Path, whole: bool) -> None:
    """Block 0 is there, block 1 exactly if it is whole, and writing goes on."""
    with BlockStore.open(folder) as store:
        assert present(store) == ([0, 1] if whole else [0])
        assert store.stats().recovered_blocks == whole
        assert store.verify() == []
        following = 2 if whole else 1
        assert fill(store, range(following, following + 2)) == [following, following + 1]
    rebuild_catalogue(folder)
    with BlockStore.open(folder) as store:
        for number in range(following + 2):
            assert_is(store.get(number), number)


def test_a_torn_record_is_cut_off_wherever_it_ends(uncommitted: Path) -> None:
    end = record_end(uncommitted, 1)
    outcomes = set()
    for folder, size in each_half_kilobyte(uncommitted):
        os.truncate(segment(folder), size)
        check_left(folder, whole=size >= end)
        outcomes.add(size >= end)
    assert outcomes == {True, False}


def test_a_record_whose_pages_were_never_written_is_cut_off(uncommitted: Path) -> None:
    """After a power cut the file may have its length and lack some of its bytes."""
    end = record_end(uncommitted, 1)
    for folder, offset in each_half_kilobyte(uncommitted):
        if offset >= end:
            continue
        with segment(folder).open("r+b") as file:
            file.seek(offset)
            file.write(bytes(512))
        check_left(folder, whole=False)


def test_committed_blocks_that_the_disk_lost_are_counted(made: Path) -> None:
    with BlockStore.open(made, readonly=True) as store:
        middle = store.entries([3])[0].offset + 300
    os.truncate(segment(made), middle)
    with BlockStore.open(made) as store:
        assert present(store) == [0, 1, 2]
        assert store.stats().lost_blocks == 2
        assert store.put(block(5)) == 5, "nothing else ever gets a lost block's id"
    segment(made).unlink()
    with pytest.raises(StoreError, match="holds no memory"):
        BlockStore.open(made)


def full_then_not(store: BlockStore, free: Callable[[], None]) -> None:
    """Fill the disk through the store, see that it keeps running, free some room, and see it go on."""
    numbers: dict[int, int] = {}
    for number in range(2000):
        block_id = store.put(block(number))
        store.commit()
        if block_id is None:
            break
        numbers[block_id] = number
    assert store.stats().refused_blocks > 0, "the disk was never full"
    kept = set(present(store))
    assert len(kept) > 5
    assert kept <= numbers.keys()
    for block_id in kept:
        assert_is(store.get(block_id), numbers[block_id])
    free()
    store.commit()
    assert set(present(store)) == set(numbers), "what was accepted is committed as soon as there is room"
    fill(store, range(3000, 3003))
    assert store.verify() == []


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root; the limit on file sizes below stands in for it")
    try:
        filler = mounted / "filler"
        filler.write_bytes(bytes(300 << 10))
        options = StoreOptions(segment_bytes=64 << 10, retry_seconds=0)
        with fresh(mounted / "m", options) as store:
            full_then_not(store, filler.unlink)
            blocks = present(store)
        with BlockStore.open(mounted / "m") as again:
            assert present(again) == blocks
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_limit_on_file_sizes_is_waited_out(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with fresh(tmp_path / "m", StoreOptions(retry_seconds=0)) as store:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            full_then_not(store, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh(tmp_path / "m", StoreOptions(retry_seconds=10)) as store:
        assert store._log is not None
        now = [0.0]
        store._log.clock = lambda: now[0]
        writes = []

        def full(*_: object) -> int:
            writes.append(now[0])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwritev", full)
        for moment in range(15):
            now[0] = float(moment)
            assert store.put(block(moment)) is None
        assert writes == [0.0, 10.0]
        assert store.stats().refused_blocks == 15
        assert store.stats().refused_tokens == sum(len(block(number)) for number in range(15))
        monkeypatch.undo()
        now[0] = 20.0
        assert fill(store, range(2)) == [0, 1]


def test_a_failed_sync_forgets_what_it_was_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh(tmp_path / "m", StoreOptions(retry_seconds=0)) as store:
        fill(store, range(2))
        store.put(block(2))

        def failing(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("streamvlm.memory.segment._sync_data", failing)
        assert store.commit() == []
        assert not store.waiting
        monkeypatch.undo()
        assert store.stats().failed_commits == 1
        assert fill(store, range(3, 4)) == [3]
        assert present(store) == [0, 1, 3]
        assert store.verify() == []


def test_a_failing_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh(tmp_path / "m") as store:

        def failing(*_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pwritev", failing)
        with pytest.raises(StoreError, match=f"{store.path}.*Input/output error"):
            store.put(block(0))
        monkeypatch.undo()
        assert fill(store, range(2)) == [0, 1]
