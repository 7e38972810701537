"""The index on disk: it survives crashes, damage and full disks, and forgets what is removed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from indexed import CAM, DIM, HEADS, KV_HEADS, LAYERS, WIDTH, StoredKeys, brute, fill, noise, open_index, same
from torch.testing import assert_close

from streamvlm.errors import StreamVLMError
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.methods import method
from streamvlm.retrieval.retriever import KeyRetriever
from streamvlm.retrieval.stream_index import IndexSettings


def test_it_is_the_same_index_after_reopening(tmp_path: Path) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)
    with open_index(tmp_path) as index:
        fill(index, 150)
        index.remove(CAM, [3, 70])
        before = index.search(query, 150, stream=CAM, selection="per_layer")
    with open_index(tmp_path) as index:
        assert len(index) == 148
        assert same(before, index.search(query, 150, stream=CAM, selection="per_layer"))
        index.add(3, CAM, 180, 240, noise(LAYERS, 1, WIDTH, seed=3))
        assert 3 in index.blocks(CAM)


def test_it_survives_without_being_closed(tmp_path: Path) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)
    lost = open_index(tmp_path)
    fill(lost, 150)
    with open_index(tmp_path) as index:
        assert same(lost.search(query, 9, stream=CAM), index.search(query, 9, stream=CAM))


def test_another_shape_is_refused(tmp_path: Path) -> None:
    open_index(tmp_path).close()
    with pytest.raises(ValueError, match="was made with"):
        open_index(tmp_path, width=5)
    with pytest.raises(ValueError, match="was made with"):
        Index(tmp_path, layers=LAYERS, width=WIDTH, label="pages")


@pytest.mark.parametrize("cut", [1, 8, 31, 32, 40])
@pytest.mark.parametrize("suffix", ["rows", "records"])
def test_a_torn_tail_costs_only_the_blocks_in_it_and_is_made_again(tmp_path: Path, cut: int, suffix: str) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)
    with open_index(tmp_path) as index:
        vectors = fill(index, 20)
        whole = index.search(query, 20, stream=CAM)
    (path,) = tmp_path.rglob(f"*.{suffix}")
    os.truncate(path, path.stat().st_size - cut)
    with open_index(tmp_path) as index:
        held = index.blocks(CAM)
        assert held in (set(range(19)), set(range(18)))
        for i in sorted(set(range(20)) - held):
            index.add(i, CAM, 60.0 * i, 60.0 * (i + 1), vectors[i])
        assert same(whole, index.search(query, 20, stream=CAM))


def test_a_flipped_bit_in_the_newest_hour_is_noticed(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        fill(index, 20, most=1)
    (path,) = tmp_path.rglob("*.rows")
    data = bytearray(path.read_bytes())
    data[5 * LAYERS * WIDTH * 4 + 2] ^= 16
    path.write_bytes(data)
    with open_index(tmp_path) as index:
        assert index.blocks(CAM) == set(range(5))


def test_catching_up_makes_it_hold_what_the_store_holds(tmp_path: Path) -> None:
    stored = {i: StoredKeys(noise(LAYERS, KV_HEADS, 6, DIM, seed=i), 2.0 * i) for i in range(12)}

    def read(block: int) -> StoredKeys:
        if block == 5:
            raise StreamVLMError("damaged")
        return stored[block]

    query = noise(LAYERS, HEADS, DIM, seed=50)
    with open_index(tmp_path / "a") as whole, open_index(tmp_path / "b") as part:
        a, b = (KeyRetriever(i, method("mean_key"), kv_heads=KV_HEADS) for i in (whole, part))
        for block in (0, 3, 9):
            b.add(block, CAM, stored[block])
        part.add(77, CAM, 0, 1, noise(LAYERS, 1, WIDTH, seed=0))
        assert a.catch_up(CAM, stored, read) == (11, 0)
        assert b.catch_up(CAM, stored, read) == (8, 1)
        assert b.catch_up(CAM, stored, read) == (0, 0)
        assert same(a.search(query, 20, stream=CAM), b.search(query, 20, stream=CAM))


def test_removed_blocks_are_gone_and_so_are_the_files_of_an_empty_hour(tmp_path: Path) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)
    with open_index(tmp_path) as index:
        vectors = fill(index, 150)
        assert index.remove(CAM, [*range(80), 99, 500]) == 81
        left = [i for i in range(80, 150) if i != 99]
        truth = brute(query, [vectors[i] for i in left], "shared").topk(10)
        hits = index.search(query, 10, stream=CAM)
        assert hits.blocks[0].tolist() == [left[i] for i in truth.indices[0]]
        assert_close(hits.scores, truth.values)
        assert {p.stem for p in tmp_path.rglob("*.rows")} == {"h000001", "h000002"}
        assert index.remove(CAM, left) == len(left)
        assert len(index) == 0
        assert not list(tmp_path.rglob("*.rows"))
        assert len(index.search(query, 10, stream=CAM)) == 0


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)

    def full(handle: int, data: object, offset: int) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with open_index(tmp_path) as index:
        vectors = fill(index, 20)
        before = index.search(query, 20, stream=CAM)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="no space left"):
                index.add(20, CAM, 1200, 1260, vectors[0])
            assert same(before, index.search(query, 20, stream=CAM))
            assert index.remove(CAM, [4]) == 1  # dropping blocks is how space is made
        index.add(20, CAM, 1200, 1260, vectors[0])
        assert index.blocks(CAM) == set(range(21)) - {4}


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    with open_index(tmp_path / "index", IndexSettings(exact=0)) as index:
        fill(index, 20)
        index.train(CAM)
        modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").rglob("*") if p.is_file()}
    assert modes == {0o600}
