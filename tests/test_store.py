"""The store on disk: what goes in comes out, for those who may read it and only for the model that wrote it."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stored import SHAPE, assert_is, block, fill, fingerprint, fresh, present

from streamvlm import BlockShape, BlockStore, CorruptError, FingerprintError, StoreError, StoreOptions
from streamvlm.memory.codecs import CODECS, LayerLayout, decode, encode
from streamvlm.memory.records import head_bytes, unpack_head
from streamvlm.memory.segment import segment_numbers, segment_path

SMALL = StoreOptions(segment_bytes=64 << 10)


@pytest.mark.parametrize("codec", CODECS)
def test_blocks_come_back_as_they_were(tmp_path: Path, codec: str) -> None:
    with fresh(tmp_path / "m", SMALL, codec) as store:
        ids = fill(store, range(40))
        assert len(segment_numbers(store.path)) > 1
        for number, got in enumerate(store.read(ids)):
            assert_is(got, number, codec)
            assert got.id == ids[number]
    with BlockStore.open(tmp_path / "m", fingerprint(codec), SHAPE) as again:
        assert present(again) == ids
        assert_is(again.get(ids[17]), 17, codec)
        assert again.put(block(40)) == ids[-1] + 1


def test_checksums_are_those_of_zlib(tmp_path: Path) -> None:
    """A store can be checked with what every language has, and those written with zlib stay readable."""
    with fresh(tmp_path / "m") as store:
        (entry,) = store.entries(fill(store, range(7, 8)))
        path = segment_path(store.path, entry.segment)
    record = path.read_bytes()[entry.offset :][: entry.length]
    head = unpack_head(record[: head_bytes(record)])
    assert head is not None
    payload, size = record[entry.payload :], LayerLayout.of("fp16", SHAPE, head.tokens).nbytes
    layers = [payload[layer * size :][:size] for layer in range(SHAPE.layers)]
    assert list(head.layer_crcs) == [zlib.crc32(layer) for layer in layers]
    assert head.crc == zlib.crc32(record[12 : head.nbytes - len(head.picture)])


@pytest.mark.parametrize("layers", [[0], [2], [1, 2], [0, 2], [2, 0, 1]])
@pytest.mark.parametrize("piece", [1 << 20, 1])
def test_some_layers_are_read_on_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: list[int], piece: int
) -> None:
    monkeypatch.setattr("streamvlm.memory.reading.PIECE", piece)
    with fresh(tmp_path / "m") as store:
        ids = fill(store, range(6))
        wanted = [ids[4], ids[1], ids[5]]
        for number, got in zip((4, 1, 5), store.read(wanted, layers), strict=True):
            assert_is(got, number, layers=layers)


@pytest.mark.parametrize("layers", [[], [3], [-1]])
def test_unknown_layers_are_refused(tmp_path: Path, layers: list[int]) -> None:
    with fresh(tmp_path / "m") as store:
        ids = fill(store, range(1))
        with pytest.raises(ValueError, match=r"within 0\.\.2"):
            store.read(ids, layers)
        with pytest.raises(ValueError, match=r"within 0\.\.2"):
            store.load(store.entries(ids), layers)


def test_int8_is_off_by_half_a_step_at_most() -> None:
    keys, values = torch.randn(2, 2, 2, 50, 16)
    keys[..., 3] += 400.0  # some models add a large constant to a few channels
    layout = LayerLayout.of("int8", BlockShape(2, 2, 16), 50)
    got_keys, got_values = decode(layout, encode("int8", keys, values))
    key_step = (keys.amax(2, keepdim=True) - keys.amin(2, keepdim=True)) / 255
    value_step = (values.amax(3, keepdim=True) - values.amin(3, keepdim=True)) / 255
    assert ((got_keys - keys).abs() <= key_step / 2 + 1e-4).all()
    assert ((got_values - values).abs() <= value_step / 2 + 1e-6).all()


def test_int8_hardly_changes_attention() -> None:
    """The bound the design sets: 1.5 % of the output, here with a constant in the keys as some models have it."""
    torch.manual_seed(0)
    query, keys, values = torch.randn(4, 128), torch.randn(1, 1, 196, 128), torch.randn(1, 1, 196, 128)
    keys[..., :4] += 100.0
    got = decode(LayerLayout.of("int8", BlockShape(1, 1, 128), 196), encode("int8", keys, values))
    exact, stored = (torch.softmax(query @ k[0, 0].T / 128**0.5, -1) @ v[0, 0] for k, v in ((keys, values), got))
    assert (stored - exact).norm() / exact.norm() < 0.015


def test_half_precision_does_not_overflow(tmp_path: Path) -> None:
    huge = replace(block(0), keys=block(0).keys * 1e6)
    with fresh(tmp_path / "m") as store:
        block_id = store.put(huge)
        store.commit()
        assert block_id is not None
        assert store.get(block_id).keys.isfinite().all()


@pytest.mark.parametrize("codec", CODECS)
def test_a_block_that_cannot_be_is_refused(tmp_path: Path, codec: str) -> None:
    broken = block(0)
    broken.values[1, 0, 2, 3] = torch.nan
    with fresh(tmp_path / "m", codec=codec) as store:
        with pytest.raises(ValueError, match="NaN"):
            store.put(broken)
        with pytest.raises(ValueError, match="head_dim=4"):
            store.put(block(0, BlockShape(3, 2, 4)))
        assert fill(store, range(2)) == [0, 1]
        with pytest.raises(ValueError, match="start <= stop"):
            replace(block(0), stop=-1.0)


def test_blocks_are_found_by_time_and_stream(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        fill(store, range(10))
        store.put(replace(block(3), stream="yard"))
        store.put(replace(block(7), start=0.5, stop=7.5))  # a long one, which starts well before what is asked for
        store.commit()
        assert [e.id for e in store.spans(3.5, 5.0)] == [11, 3, 10, 4]
        assert [e.id for e in store.spans(3.0, 4.0, "yard")] == [10]
        assert [e.id for e in store.spans(8.0, 99.0)] == [8, 9]
        assert store.spans(10.0, 20.0) == []
        found = store.entries([4])[0]
        assert (found.start, found.stop, found.text, found.stream, found.tokens) == (4.0, 5.0, "4 é", "door", 7)
        assert [e.id for e in store.blocks(after=9)] == [10, 11]


def test_a_block_does_not_exist_before_it_is_committed(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        block_id = store.put(block(0))
        assert block_id is not None
        assert present(store) == []
        with pytest.raises(StoreError, match=f"no block {block_id}"):
            store.get(block_id)
        store.commit()
        assert present(store) == [block_id]


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with fresh(folder, SMALL) as store:
        fill(store, range(40))
        files = list(folder.iterdir())
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert len(files) > 5
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_writer_many_readers(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with fresh(folder) as store:
        ids = fill(store, range(3))
        with pytest.raises(StoreError, match=f"{folder}.*written by another process"):
            BlockStore.open(folder)
        script = f"from streamvlm import BlockStore; BlockStore.open({str(folder)!r})"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "written by another process" in other.stderr
        with BlockStore.open(folder, readonly=True) as reader:
            assert present(reader) == ids
            with pytest.raises(StoreError, match="not open for writing"):
                reader.put(block(3))
            fill(store, range(3, 5))
            assert_is(reader.get(4), 4)
    with BlockStore.open(folder) as again:
        assert present(again) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"weights": "cd34"}, "weights is 'ab12', wanted 'cd34'"),
        ({"codec": "int8"}, "codec is 'fp16', wanted 'int8'"),
        ({"rope": "yarn", "prompt": "x"}, "rope is '', wanted 'yarn'; prompt is '', wanted 'x'"),
    ],
)
def test_a_foreign_memory_is_refused(tmp_path: Path, changed: dict[str, str], told: str) -> None:
    fresh(tmp_path / "m").close()
    for readonly in (False, True):
        with pytest.raises(FingerprintError, match=told):
            BlockStore.open(tmp_path / "m", fingerprint(**changed), SHAPE, readonly=readonly)
    with pytest.raises(FingerprintError, match="layers is 3, wanted 4"):
        BlockStore.open(tmp_path / "m", fingerprint(), BlockShape(4, 2, 8))
    BlockStore.open(tmp_path / "m", fingerprint(), SHAPE).close()


def test_a_segment_of_another_store_is_refused(tmp_path: Path) -> None:
    fresh(tmp_path / "m").close()
    BlockStore.create(tmp_path / "other", fingerprint(weights="cd34"), SHAPE).close()
    (tmp_path / "other" / "seg-000000.kv").rename(tmp_path / "m" / "seg-000001.kv")
    with pytest.raises(FingerprintError, match=r"seg-000001.*weights is 'cd34', wanted 'ab12'"):
        BlockStore.open(tmp_path / "m")


def test_digests_tell_fingerprints_apart() -> None:
    assert fingerprint().digest == fingerprint().digest
    digests = {fingerprint(**{name: "?"}).digest for name in ("model", "weights", "config", "dtype", "rope", "prompt")}
    assert len(digests | {fingerprint().digest}) == 7
    assert fingerprint().difference(fingerprint()) == ""


def test_a_memory_needs_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StoreError, match="not empty"):
        fresh(tmp_path)
    with pytest.raises(StoreError, match="holds no memory"):
        BlockStore.open(tmp_path)
    fresh(tmp_path / "m").close()
    with pytest.raises(StoreError, match="not empty"):
        fresh(tmp_path / "m")


def test_a_quota_drops_the_oldest(tmp_path: Path) -> None:
    quota = 256 << 10
    with fresh(tmp_path / "m", StoreOptions(quota=quota)) as store:
        for number in range(200):
            store.put(block(number))
            assert store.stats().bytes <= quota
        store.commit()
        stats, ids = store.stats(), present(store)
        assert ids == list(range(ids[0], 200)), "the newest are kept, without a hole"
        assert ids[0] > 0
        assert stats.dropped_segments > 0
        assert stats.dropped_blocks == ids[0]
        assert stats.dropped_tokens == sum(len(block(number)) for number in range(ids[0]))
        assert stats.bytes > quota // 2
        assert store.verify() == []
        with pytest.raises(StoreError, match="no block 0"):
            store.get(0)
    with BlockStore.open(tmp_path / "m") as again:
        assert present(again) == ids
        assert again.gc(quota=100 << 10) > 0
        assert again.stats().bytes <= 100 << 10
        assert again.gc(before=1e9) > 0
        assert present(again) == []
        assert again.put(block(0)) == 200, "ids are never used twice"


def test_a_block_over_the_quota_is_refused_alone(tmp_path: Path) -> None:
    with fresh(tmp_path / "m", StoreOptions(quota=64 << 10)) as store:
        assert store.put(replace(block(0), thumbnail=bytes(80 << 10))) is None
        assert fill(store, range(2)) == [0, 1]
        assert store.stats().refused_blocks == 1


def faults(reader: BlockStore, read: list[int]) -> list[str]:
    """What is wrong with the newest blocks; being dropped since they were listed is not."""
    wrong = []
    for entry in reader.spans(0, 1e9)[-20:]:
        try:
            assert_is(reader.get(entry.id), entry.id)
            read.append(entry.id)
        except (AssertionError, CorruptError) as error:
            wrong.append(f"block {entry.id}: {error}")
        except StoreError as error:
            if "gone" not in str(error) and "no block" not in str(error):
                wrong.append(str(error))
    return wrong


def test_readers_are_right_while_it_is_written_and_dropped(tmp_path: Path) -> None:
    store = fresh(tmp_path / "m", StoreOptions(quota=256 << 10))
    fill(store, range(1))
    done = threading.Event()
    read: list[int] = []
    wrong: list[str] = []

    def look() -> None:
        with BlockStore.open(tmp_path / "m", readonly=True) as reader:
            while not done.is_set():
                wrong.extend(faults(reader, read))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 400):
        store.put(block(number))
        if number % 7 == 0:
            store.commit()
    done.set()
    for reader in readers:
        reader.join()
    dropped = store.stats().dropped_segments
    store.close()
    assert wrong == []
    assert len(set(read)) > 20
    assert dropped > 0
