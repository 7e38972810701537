"""The index beyond the exact limit: what its approximation finds, and what it must never do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from indexed import CAM, LAYERS, WIDTH, brute, fill, noise, open_index, same
from torch import Tensor

from streamvlm.retrieval.index import Index
from streamvlm.retrieval.stream_index import IndexSettings


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


def test_recall_says_when_the_approximation_is_poor(tmp_path: Path) -> None:
    with open_index(tmp_path, IndexSettings(exact=100, probe=0.02)) as index:
        fill(index, 1500, seconds=2.0, most=1)  # noise: nothing to make cells of
        queries = [noise(LAYERS, WIDTH, seed=5000 + i) for i in range(20)]
        index.train(CAM)
        assert 0.0 < index.recall(queries, 10, stream=CAM) < 0.9


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


@pytest.mark.parametrize("damage", [lambda data: b"nonsense", lambda data: b"", lambda data: data[: len(data) // 2]])
def test_unreadable_cells_are_made_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with open_index(tmp_path, IndexSettings(exact=10)) as index:
        fill(index, 50)
        index.train(CAM)
    (path,) = tmp_path.rglob("cells.npz")
    path.write_bytes(damage(path.read_bytes()))
    with open_index(tmp_path, IndexSettings(exact=10)) as index:
        assert len(index) == 50
        assert index.training_due(CAM)


def test_it_may_be_searched_and_trained_while_blocks_arrive(tmp_path: Path) -> None:
    query = noise(LAYERS, WIDTH, seed=1000)
    with open_index(tmp_path, IndexSettings(exact=50)) as index, ThreadPoolExecutor(1) as pool:
        adding = pool.submit(fill, index, 300)
        found = [0]
        while not adding.done():
            found.append(len(index.search(query, 300, stream=CAM)))
            index.train(CAM)
        assert found == sorted(found)
        vectors = adding.result()
        truth = brute(query, vectors, "shared").topk(10)
        assert torch.equal(index.search(query, 10, stream=CAM, exact=True).blocks, truth.indices)
        assert len(index.search(query, 300, stream=CAM)) == 300
