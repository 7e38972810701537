"""Many blocks at once: the same as one after the other, and as careful about damage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from stored import SHAPE, block, fill, fresh

from streamvlm import BlockStore, CorruptError, StoreError, StoreOptions
from streamvlm.memory.blocks import BlockRun
from streamvlm.memory.codecs import CODECS
from streamvlm.memory.segment import segment_numbers, segment_path

SMALL = StoreOptions(segment_bytes=64 << 10)
MIXED = [31, 4, 5, 6, 0, 39, 7, 22]  # neighbours, gaps, several segments, in an order of their own


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layers", [None, [1], [0, 2], [2, 0, 1]])
@pytest.mark.parametrize(("threads", "worth"), [(1, 1 << 20), (16, 1 << 20), (3, 1)])
@pytest.mark.parametrize("piece", [1 << 20, 6 << 10, 1])
def test_blocks_at_once_are_those_one_by_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codec: str,
    layers: list[int] | None,
    threads: int,
    worth: int,
    piece: int,
) -> None:
    monkeypatch.setattr("streamvlm.memory.loading.PIECE", piece)
    monkeypatch.setattr("streamvlm.memory.loading.WORTH", worth)
    with fresh(tmp_path / "m", SMALL, codec) as store:
        fill(store, range(40))
        assert len(segment_numbers(store.path)) > 1
        expected = BlockRun.of(store.read(MIXED, layers))
        for _ in range(2):  # buffers are used again
            loaded = store.load(store.entries(MIXED), layers, threads=threads)
            for name in ("keys", "values", "positions"):
                assert torch.equal(getattr(loaded.run, name), getattr(expected, name)), name
            assert loaded.run.extent == expected.extent == sum(block(number).extent for number in MIXED)
            assert loaded.pictures == tuple(block(number).thumbnail for number in MIXED)


def test_a_run_places_blocks_one_behind_the_other() -> None:
    parts = [block(3), block(1), block(8)]
    run = BlockRun.of(parts)
    assert len(run) == sum(map(len, parts)) and run.extent == sum(part.extent for part in parts)
    row = start = 0
    for part in parts:
        assert torch.equal(run.positions[row : row + len(part)], part.positions + start)
        assert torch.equal(run.keys[:, :, row : row + len(part)], part.keys)
        row, start = row + len(part), start + part.extent


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 8]))


@pytest.mark.parametrize("worth", [1 << 20, 1])
def test_damage_is_found_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: int) -> None:
    monkeypatch.setattr("streamvlm.memory.loading.WORTH", worth)
    with fresh(tmp_path / "m") as store:
        entries = store.entries(fill(store, range(6)))
        path, hit = segment_path(store.path, 0), entries[3]
        layer = store.encoded(hit).payload.shape[1]
        inside = hit.offset + hit.payload + layer + 5  # the second of three layers
        flip(path, inside)
        with pytest.raises(CorruptError, match="layer 1 of block 3 fails its checksum"):
            store.load(entries)
        assert len(store.load(entries, [0, 2]).run) == sum(entry.tokens for entry in entries)
        flip(path, inside)
        flip(path, hit.offset + 40)
        with pytest.raises(CorruptError, match="block 3 is not at byte"):
            store.load(entries, [0])
        flip(path, hit.offset + 40)
        picture = block(3).thumbnail
        at = path.read_bytes().index(picture, hit.offset)
        flip(path, at)
        assert [bool(shown) for shown in store.load(entries).pictures] == [True, True, True, False, True, True]


def test_what_the_catalogue_says_wrongly_is_found(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        first, second = store.entries(fill(store, range(2)))
        store.catalogue.remove([second.id])
        changed = type(second)(**{n: getattr(second, n) for n in second.__slots__} | {"tokens": second.tokens - 1})
        with pytest.raises(CorruptError, match="block 1 has 4 rows, the catalogue says 3"):
            store.load([first, changed])


def test_a_segment_that_is_gone_or_ends_early(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        entries = store.entries(fill(store, range(4)))
        with pytest.raises(ValueError, match="no entries"):
            store.load([])
    path = segment_path(tmp_path / "m", 0)
    with BlockStore.open(tmp_path / "m", readonly=True) as store:
        size = path.stat().st_size
        os.truncate(path, entries[3].offset + entries[3].payload + 7)
        with pytest.raises(CorruptError, match="inside a record"):
            store.load(entries)
        assert len(store.load(entries[:3]).run) == sum(entry.tokens for entry in entries[:3])
        path.unlink()
        with pytest.raises(StoreError, match="is gone: its segment was dropped"):
            store.load(entries)
        assert size > 0


def test_the_padding_of_the_last_record_need_not_be_there(tmp_path: Path) -> None:
    with fresh(tmp_path / "m") as store:
        entries = store.entries(fill(store, range(3)))
        last = entries[-1]
        payload = store.encoded(last).payload
        os.truncate(segment_path(store.path, 0), last.offset + last.payload + payload.numel())
        assert torch.equal(store.load(entries).run.keys, BlockRun.of(store.read([e.id for e in entries])).keys)
        assert SHAPE.layers == payload.shape[0]
