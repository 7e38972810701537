"""A sketched search finds exactly what scoring every vector finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamvlm.retrieval.index import Index
from streamvlm.retrieval.stream_index import HOUR, IndexSettings

LAYERS, WIDTH, BLOCKS = 3, 16, 2400  # over two hours


def vectors_of(number: int, rows: int) -> Tensor:
    """Alike within a minute, as video is; a few channels are far out, and late ones farther."""
    scene = torch.randn(LAYERS, 1, WIDTH, generator=torch.Generator().manual_seed(number // 60))
    own = torch.randn(LAYERS, rows, WIDTH, generator=torch.Generator().manual_seed(10_000 + number))
    found = scene + 0.2 * own
    found[..., 3] = 40.0 + 0.01 * number
    return found


def filled(path: Path, rows: int, sketch_bytes: int) -> Index:
    index = Index(path, layers=LAYERS, width=WIDTH, settings=IndexSettings(sketch_bytes=sketch_bytes))
    for number in range(BLOCKS):
        start = number * 2 * HOUR / BLOCKS
        index.add(number, "s", start, start + 1.0, vectors_of(number, 1 + number % rows))
    return index


def truth(query: Tensor, numbers: list[int], rows: int, selection: str, k: int) -> list[list[int]]:
    columns = [torch.einsum("lw,lmw->lm", query, vectors_of(i, 1 + i % rows)) for i in numbers]
    if selection == "shared":
        scores = torch.stack([column.mean(0).max() for column in columns])[None]
    else:
        scores = torch.stack([column.max(1).values for column in columns], dim=1)
    return [[numbers[i] for i in row.topk(k).indices.tolist()] for row in scores]


@pytest.mark.parametrize("selection", ["shared", "per_layer"])
@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_is_missed(tmp_path: Path, rows: int, selection: str) -> None:
    with filled(tmp_path, rows, 1 << 20) as index:
        for seed in range(6):
            query = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(seed))
            expected = truth(query, list(range(BLOCKS)), rows, selection, 20)
            assert index.search(query, 20, stream="s", selection=selection).blocks.tolist() == expected
        assert index._streams["s"]._sketches._of, "no sketch was used"
        gone = list(range(0, 300)) + list(range(1500, 1510))
        index.remove("s", gone)
        left = [i for i in range(BLOCKS) if i not in gone]
        expected = truth(query, left, rows, selection, 20)
        assert index.search(query, 20, stream="s", selection=selection).blocks.tolist() == expected


def test_a_sketch_takes_in_what_comes_later(tmp_path: Path) -> None:
    with Index(tmp_path, layers=LAYERS, width=WIDTH) as index:
        query = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(5))
        for number in range(1500):
            index.add(number, "s", float(number), number + 1.0, vectors_of(number, 1))
            if number in (700, 900, 1499):
                expected = truth(query, list(range(number + 1)), 1, "shared", 8)
                assert index.search(query, 8, stream="s").blocks.tolist() == expected


def test_sketches_keep_to_their_budget(tmp_path: Path) -> None:
    room = BLOCKS // 2 * LAYERS * WIDTH  # of one hour
    with filled(tmp_path, 1, room) as index:
        query = torch.randn(LAYERS, WIDTH, generator=torch.Generator().manual_seed(5))
        index.search(query, 8, stream="s")
        held = index._streams["s"]._sketches._of
        assert sum(sketch.nbytes for sketch in held.values()) <= room and len(held) == 1
    with pytest.raises(ValueError, match="sketch_bytes is -1"):
        IndexSettings(sketch_bytes=-1)
