"""The index of representatives: exactness, filters, persistence, removal, and how good its approximation is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from streamvlm.errors import StreamVLMError
from streamvlm.retrieval.external import ExternalRetriever
from streamvlm.retrieval.hits import Hits
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.methods import METHODS, method
from streamvlm.retrieval.retriever import KeyRetriever
from streamvlm.retrieval.stream_index import IndexSettings

LAYERS, HEADS, KV_HEADS, DIM = 3, 4, 2, 4
WIDTH = KV_HEADS * DIM
CAM = "cam/1"


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def open_index(path: Path, settings: IndexSettings | None = None, width: int = WIDTH) -> Index:
    return Index(path, layers=LAYERS, width=width, settings=settings)


def fill(index: Index, count: int, seconds: float = 60.0, most: int = 3) -> list[Tensor]:
    """Blocks 0, 1, … of `seconds` each, with one to `most` vectors."""
    vectors = [noise(LAYERS, 1 + i % most, WIDTH, seed=i) for i in range(count)]
    for i, v in enumerate(vectors):
        index.add(i, CAM, seconds * i, seconds * (i + 1), v)
    return vectors


def brute(query: Tensor, vectors: Sequence[Tensor], selection: str) -> Tensor:
    """Scores [1 or layers, blocks] by the definition."""
    per_vector = [torch.einsum("lw,lmw->lm", query, v) for v in vectors]
    if selection == "shared":
        return torch.stack([s.mean(0).max() for s in per_vector])[None]
    return torch.stack([s.max(1).values for s in per_vector], dim=1)


def same(a: Hits, b: Hits) -> bool:
    return torch.equal(a.blocks, b.blocks) and torch.allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("selection", ["shared", "per_layer"])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_a_search_is_exact(tmp_path: Path, selection: str, k: int) -> None:
    with open_index(tmp_path) as index:
        vectors = fill(index, 150)  # three hours
        for seed in range(5):
            query = noise(LAYERS, WIDTH, seed=1000 + seed)
            hits = index.search(query, k, stream=CAM, selection=selection)
            truth = brute(query, vectors, selection).topk(min(k, 150))
            assert torch.equal(hits.blocks, truth.indices)
            assert_close(hits.scores, truth.values)
            assert torch.equal(hits.starts, 60.0 * hits.blocks)
            assert torch.equal(hits.stops, hits.starts + 60)


def test_it_finds_what_a_flat_faiss_index_finds(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        vectors = fill(index, 300, seconds=2.0, most=1)
        flat = faiss.IndexFlatIP(LAYERS * WIDTH)
        flat.add(torch.stack([v.flatten() for v in vectors]).numpy())
        query = noise(LAYERS, WIDTH, seed=1000)
        scores, ids = flat.search(query.reshape(1, -1).numpy() / LAYERS, 10)
        hits = index.search(query, 10, stream=CAM)
        np.testing.assert_array_equal(hits.blocks.numpy(), ids)
        np.testing.assert_allclose(hits.scores.numpy(), scores, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("selection", ["shared", "per_layer"])
def test_every_method_is_found_as_it_scores(tmp_path: Path, name: str, selection: str) -> None:
    how = method(name)
    with open_index(tmp_path, width=how.width(KV_HEADS, DIM)) as index:
        retriever = KeyRetriever(index, how, kv_heads=KV_HEADS)
        stored = [StoredKeys(noise(LAYERS, KV_HEADS, 20, DIM, seed=i), 2.0 * i) for i in range(30)]
        for i, block in enumerate(stored):
            retriever.add(i, CAM, block)
        query = noise(LAYERS, HEADS, DIM, seed=77)
        hits = retriever.search(query, 5, stream=CAM, selection=selection)
        scores = how.score(query, KV_HEADS, [how.represent(b.keys) for b in stored], selection).view(-1, 30)
        assert_close(hits.scores, scores.topk(5).values)
        assert_close(scores.gather(1, hits.blocks), hits.scores)


@dataclass(frozen=True, slots=True, eq=False)
class StoredKeys:
    """What the retriever needs of a stored block."""

    keys: Tensor
    start: float

    @property
    def stop(self) -> float:
        return self.start + 2


def test_recency_is_the_newest_blocks(tmp_path: Path) -> None:
    with open_index(tmp_path, width=1) as index:
        retriever = KeyRetriever(index, method("recency"), kv_heads=KV_HEADS)
        for i in (3, 0, 4, 1, 2):
            retriever.add(i, CAM, StoredKeys(torch.zeros(LAYERS, KV_HEADS, 5, DIM), 2.0 * i))
        hits = retriever.search(noise(LAYERS, HEADS, DIM, seed=1), 3, stream=CAM, selection="per_layer")
        assert hits.blocks.tolist() == [[4, 3, 2]] * LAYERS


def test_only_blocks_that_overlap_a_span_are_found(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        vectors = fill(index, 150)
        query = noise(LAYERS, WIDTH, seed=1000)
        spans = [(90.0, 180.0), (3590.0, 3610.0), (1e6, 2e6)]
        hits = index.search(query, 50, stream=CAM, spans=spans)
        assert sorted(hits.blocks[0].tolist()) == [1, 2, 59, 60]
        assert_close(hits.scores, brute(query, vectors, "shared").gather(1, hits.blocks))
        assert len(index.search(query, 5, stream=CAM, spans=[(-50.0, 0.0)])) == 0
        assert len(index.search(query, 5, stream=CAM, spans=[])) == 0


def test_a_block_of_no_length_is_found_where_it_stands(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        index.add(0, CAM, 5.0, 5.0, noise(LAYERS, 1, WIDTH, seed=0))
        query = noise(LAYERS, WIDTH, seed=1)
        assert len(index.search(query, 1, stream=CAM, spans=[(5.0, 6.0)])) == 1
        assert len(index.search(query, 1, stream=CAM, spans=[(4.0, 5.0)])) == 0


def test_streams_do_not_see_each_other(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        for stream in (CAM, "..", "b"):
            index.add(7, stream, 0, 2, noise(LAYERS, 1, WIDTH, seed=len(stream)))
        index.remove("b", [7])
        query = noise(LAYERS, WIDTH, seed=1)
        assert [len(index.search(query, 3, stream=s)) for s in (CAM, "..", "b", "never")] == [1, 1, 0, 0]
        assert index.search(query, 3, stream="never", selection="per_layer").blocks.shape == (LAYERS, 0)
    assert {p.parent for p in tmp_path.rglob("*.rows")} <= set(tmp_path.iterdir())


def test_ties_go_to_the_newer_block(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        for i in range(40):
            index.add(i, CAM, 200.0 * i, 200.0 * i + 2, torch.ones(LAYERS, 2, WIDTH))
        query = torch.ones(LAYERS, WIDTH)
        for selection in ("shared", "per_layer"):
            assert index.search(query, 3, stream=CAM, selection=selection).blocks[-1].tolist() == [39, 38, 37]


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


def test_a_retriever_may_index_some_layers(tmp_path: Path) -> None:
    keys, query = noise(8, KV_HEADS, 6, DIM, seed=0), noise(8, HEADS, DIM, seed=1)
    with open_index(tmp_path) as index:
        retriever = KeyRetriever(index, method("top_tokens"), kv_heads=KV_HEADS, layers=[2, 4, 5])
        retriever.add(0, CAM, StoredKeys(keys, 0.0), received=torch.rand(8, KV_HEADS, 6))
        retriever.add(1, CAM, StoredKeys(keys, 2.0))
        assert len(retriever.search(query, 5, stream=CAM)) == 2
        with pytest.raises(ValueError, match="2 layers are to be indexed"):
            KeyRetriever(index, method("mean_key"), kv_heads=KV_HEADS, layers=[2, 4])


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


def test_mistakes_are_refused_and_change_nothing(tmp_path: Path) -> None:
    good, query = noise(LAYERS, 1, WIDTH, seed=0), noise(LAYERS, WIDTH, seed=1)
    with open_index(tmp_path) as index:
        index.add(0, CAM, 0, 2, good)
        for args in ((0, CAM, 0, 2, good), (1, CAM, 0, 2, good[:2]), (1, CAM, 0, 2, good[:, :0])):
            with pytest.raises(ValueError, match=r"already|vectors are"):
                index.add(*args)
        for args in ((1, CAM, 3, 2, good), (1, CAM, -1, 2, good), (1, CAM, 0, 2, good * torch.nan)):
            with pytest.raises(ValueError, match=r"from|finite"):
                index.add(*args)
        with pytest.raises(ValueError, match="selection is 'both'"):
            index.search(query, 1, stream=CAM, selection="both")
        with pytest.raises(ValueError, match="k is 0"):
            index.search(query, 0, stream=CAM)
        with pytest.raises(ValueError, match="the query is"):
            index.search(query[:2], 1, stream=CAM)
        assert index.blocks(CAM) == {0}


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


def clustered(index: Index, blocks: int, bias: float) -> list[Tensor]:
    """Blocks around 40 centres, all shifted by a common bias as Qwen2's keys are; returns queries near them."""
    centres = noise(40, LAYERS, WIDTH, seed=1)
    common = bias * noise(LAYERS, WIDTH, seed=2)
    for i in range(blocks):
        vectors = centres[i % 40] + common + 0.3 * noise(LAYERS, WIDTH, seed=100 + i)
        index.add(i, CAM, 2.0 * i, 2.0 * i + 2, vectors.unsqueeze(1))
    return [centres[i] + 0.5 * noise(LAYERS, WIDTH, seed=9000 + i) for i in range(40)]


@pytest.mark.parametrize("selection", ["shared", "per_layer"])
@pytest.mark.parametrize("bias", [0.0, 10.0])
def test_beyond_the_exact_limit_it_reads_a_part_and_finds_nine_in_ten(
    tmp_path: Path, selection: str, bias: float
) -> None:
    with open_index(tmp_path, IndexSettings(exact=1000, probe=0.1)) as index:
        queries = clustered(index, 4000, bias)
        assert index.training_due(CAM)
        assert index.recall(queries, 10, stream=CAM, selection=selection) == 1.0  # still exact
        index.train(CAM)
        assert not index.training_due(CAM)
        assert 0.9 <= index.recall(queries, 10, stream=CAM, selection=selection) <= 1.0


def test_the_approximation_keeps_the_rules(tmp_path: Path) -> None:
    settings = IndexSettings(exact=100, probe=0.02)
    with open_index(tmp_path, settings) as index:
        queries = clustered(index, 2000, 0.0)
        index.train(CAM)
        clustered_blocks = index.blocks(CAM)
        index.remove(CAM, range(0, 2000, 2))
        index.add(2000, CAM, 4000, 4002, 10 * queries[0].unsqueeze(1))  # after training
        hits = index.search(queries[0], 1500, stream=CAM)
        assert sorted(hits.blocks[0].tolist()) == sorted(clustered_blocks - set(range(0, 2000, 2)) | {2000})
        assert int(index.search(queries[0], 5, stream=CAM).blocks[0, 0]) == 2000
        spans = [(0.0, 300.0)]
        few = index.search(queries[1], 10, stream=CAM, spans=spans)
        assert same(few, index.search(queries[1], 10, stream=CAM, spans=spans, exact=True))  # few enough to be exact
        before = index.search(queries[2], 10, stream=CAM)
    with open_index(tmp_path, settings) as index:
        assert same(before, index.search(queries[2], 10, stream=CAM))
        assert not index.training_due(CAM)


def test_unreadable_cells_are_made_again(tmp_path: Path) -> None:
    with open_index(tmp_path, IndexSettings(exact=10)) as index:
        fill(index, 50)
        index.train(CAM)
    (path,) = tmp_path.rglob("cells.npz")
    path.write_bytes(b"nonsense")
    with open_index(tmp_path, IndexSettings(exact=10)) as index:
        assert len(index) == 50
        assert index.training_due(CAM)


class Colours:
    """Embeds pictures and colour names as red, green and blue."""

    dim = 3

    def embed_frames(self, frames: Tensor) -> Tensor:
        return frames.float().mean((2, 3))

    def embed_text(self, text: str) -> Tensor:
        return torch.tensor([float(word in text) for word in ("red", "green", "blue")])


def test_an_external_retriever_finds_frames_by_text(tmp_path: Path) -> None:
    with Index(tmp_path, layers=1, width=3) as index:
        retriever = ExternalRetriever(index, Colours())
        for i in range(9):
            frames = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
            frames[1, i % 3] = 100 + i
            frames[0] = 80
            retriever.add(i, CAM, 2.0 * i, 2.0 * i + 2, frames)
        hits = retriever.search("what was green?", 3, stream=CAM, selection="per_layer")
        assert hits.blocks.tolist() == [[7, 4, 1]]
        assert_close(hits.scores, torch.ones(1, 3))
        assert retriever.search("green", 3, stream=CAM, spans=[(0.0, 6.0)]).blocks[0, 0] == 1


def test_an_external_retriever_needs_an_index_of_its_shape(tmp_path: Path) -> None:
    with open_index(tmp_path) as index, pytest.raises(ValueError, match=r"must be for \[1, 3\]"):
        ExternalRetriever(index, Colours())
