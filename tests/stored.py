"""Small blocks with known content, and stores to put them in."""

from __future__ import annotations

from pathlib import Path

import torch

from streamvlm import BlockShape, BlockStore, Fingerprint, KVBlock, StoreOptions
from streamvlm.types import Kind

SHAPE = BlockShape(layers=3, kv_heads=2, head_dim=8)
TOLERANCE = {"fp16": 4e-3, "int8": 3e-2, "fp32": 0.0}  # of values up to about 4


def fingerprint(codec: str = "fp16", **changed: str) -> Fingerprint:
    return Fingerprint(
        **{"model": "tiny", "weights": "ab12", "config": "c0", "dtype": "float32", "codec": codec} | changed
    )


def block(number: int, shape: BlockShape = SHAPE) -> KVBlock:
    """Block `number`: everything about it follows from the number."""
    tokens = 3 + number % 40
    size = (shape.layers, shape.kv_heads, tokens, shape.head_dim)
    seeded = torch.Generator().manual_seed(number)
    keys, values = torch.randn(2, *size, generator=seeded)
    positions = torch.arange(3 * tokens).view(tokens, 3) + number
    kind = Kind.TEXT if number % 5 == 0 else Kind.VISION
    return KVBlock(
        keys, values, positions, tokens, kind, number, number + 1.0, f"{number} é", "door", bytes([number % 256]) * 9
    )


def assert_is(got: KVBlock, number: int, codec: str = "fp16", layers: list[int] | None = None) -> None:
    """`got` is block `number`, or those layers of it, as exactly as the codec promises."""
    wanted = block(number)
    chosen = list(range(SHAPE.layers)) if layers is None else layers
    for mine, theirs in ((got.keys, wanted.keys[chosen]), (got.values, wanted.values[chosen])):
        if codec == "int8":
            torch.testing.assert_close(mine.float(), theirs, atol=TOLERANCE[codec], rtol=0)
        else:
            assert torch.equal(mine, theirs.to(mine.dtype))
    assert torch.equal(got.positions, wanted.positions)
    for name in ("extent", "kind", "start", "stop", "text", "stream", "thumbnail"):
        assert getattr(got, name) == getattr(wanted, name)


def fresh(folder: Path, options: StoreOptions | None = None, codec: str = "fp16") -> BlockStore:
    return BlockStore.create(folder, fingerprint(codec), SHAPE, options)


def fill(store: BlockStore, numbers: range) -> list[int]:
    """Store and commit these blocks; their ids."""
    ids = []
    for number in numbers:
        block_id = store.put(block(number))
        assert block_id is not None
        ids.append(block_id)
    assert [entry.id for entry in store.commit()] == ids
    return ids


def present(store: BlockStore) -> list[int]:
    return [entry.id for entry in store.blocks()]
