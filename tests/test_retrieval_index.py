"""The index of representatives: exactness, filters, ties, and the retrievers on top of it."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from indexed import CAM, DIM, HEADS, KV_HEADS, LAYERS, WIDTH, StoredKeys, brute, fill, noise, open_index
from torch import Tensor
from torch.testing import assert_close

from streamvlm.retrieval.external import ExternalRetriever
from streamvlm.retrieval.index import Index
from streamvlm.retrieval.methods import METHODS, method
from streamvlm.retrieval.retriever import KeyRetriever
from streamvlm.retrieval.selection import candidates


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
        scores, ids = flat.search((query / LAYERS).reshape(1, -1).numpy(), 10)
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


def test_a_retriever_may_index_some_layers(tmp_path: Path) -> None:
    keys, query = noise(8, KV_HEADS, 6, DIM, seed=0), noise(8, HEADS, DIM, seed=1)
    with open_index(tmp_path) as index:
        retriever = KeyRetriever(index, method("top_tokens"), kv_heads=KV_HEADS, layers=[2, 4, 5])
        retriever.add(0, CAM, StoredKeys(keys, 0.0), received=torch.rand(8, KV_HEADS, 6))
        retriever.add(1, CAM, StoredKeys(keys, 2.0))
        assert len(retriever.search(query, 5, stream=CAM)) == 2
        with pytest.raises(ValueError, match="2 layers are to be indexed"):
            KeyRetriever(index, method("mean_key"), kv_heads=KV_HEADS, layers=[2, 4])


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


def test_hits_become_candidates_with_what_they_cost(tmp_path: Path) -> None:
    with open_index(tmp_path) as index:
        fill(index, 10)
        hits = index.search(noise(LAYERS, WIDTH, seed=1000), 4, stream=CAM, selection="per_layer")
        found = candidates(hits, lambda block: (100 + block, block), row=1)
        assert [c.block for c in found] == hits.blocks[1].tolist()
        assert [c.score for c in found] == hits.scores[1].tolist()
        assert all(
            (c.tokens, c.extent, c.start, c.stop) == (100 + c.block, c.block, 60.0 * c.block, 60.0 * c.block + 60)
            for c in found
        )


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
