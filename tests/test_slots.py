"""SlotCache on a handful of slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from streamvlm.errors import BudgetError
from streamvlm.memory.slots import FREE, SHARED, CacheShape, SlotCache, rotate


def angles(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Plain rotary angles on the t axis for heads of four."""
    theta = positions[:, :1].float() * torch.tensor([1.0, 0.1])
    return torch.cat((theta.cos(), theta.cos()), -1), torch.cat((theta.sin(), theta.sin()), -1)


def cache_of(capacity: int) -> SlotCache:
    return SlotCache(CacheShape(layers=2, kv_heads=1, head_dim=4, capacity=capacity), angles)


def at(*positions: int) -> Tensor:
    return torch.tensor(positions).unsqueeze(1).expand(-1, 3).contiguous()


def fill(cache: SlotCache, n: int, start: int = 0) -> Tensor:
    """One committed epoch of `n` shared rows with random keys; returns their slots."""
    rows = cache.place(at(*range(start, start + n)))
    for layer in range(2):
        cache.write(layer, rows.slots, torch.randn(1, n, 4), torch.randn(1, n, 4))
    cache.commit()
    cache.check()
    return rows.slots


def test_a_full_cache_refuses_and_stays_as_it_was() -> None:
    cache = cache_of(4)
    fill(cache, 3)
    with pytest.raises(BudgetError, match="2 slots wanted, 1 of 4 free"):
        cache.place(at(3, 4))
    cache.check()
    assert cache.used == 3


def test_evicted_slots_are_free_at_once_when_nobody_reads() -> None:
    cache = cache_of(4)
    slots = fill(cache, 4)
    cache.kill(slots[:2])
    cache.commit()
    cache.check()
    assert (cache.used, cache.pinned) == (2, 0)


def test_a_reader_pins_exactly_what_it_sees() -> None:
    cache = cache_of(8)
    first = fill(cache, 2)
    reader = cache.open_reader(cursor=2)
    cache.kill(first)
    cache.commit()
    second = fill(cache, 2, start=2)  # born after the reader's snapshot
    cache.kill(second)
    cache.commit()
    cache.check()
    assert cache.pinned == 2, "the rows of the snapshot, and none that came later"
    cache.close_reader(reader)
    cache.check()
    assert (cache.used, cache.pinned) == (0, 0)


def test_visibility_is_the_snapshot_the_readers_own_rows_and_what_came_before() -> None:
    cache = cache_of(10)
    old = fill(cache, 2)
    ann, bob = cache.open_reader(cursor=2), cache.open_reader(cursor=2)
    cache.kill(old[:1])
    new = cache.place(at(2, 3))
    a, b = cache.place_private(ann, at(0, 1), 2), cache.place_private(bob, at(0), 1)
    n = cache.extent

    def seen(rows: object, i: int) -> set[int]:
        return set(cache.visible(rows, n)[i].nonzero().squeeze(1).tolist())  # type: ignore[arg-type]

    snapshot = set(old.tolist())
    assert seen(a, 0) == snapshot | {int(a.slots[0])}
    assert seen(a, 1) == snapshot | set(a.slots.tolist())
    assert seen(b, 0) == snapshot | set(b.slots.tolist())
    assert seen(new, 0) == {int(old[1]), int(new.slots[0])}
    assert seen(new, 1) == {int(old[1]), *new.slots.tolist()}


def test_private_rows_continue_at_the_readers_cursor() -> None:
    cache = cache_of(8)
    fill(cache, 3)
    reader = cache.open_reader(cursor=3)
    first = cache.place_private(reader, at(0, 1), 2)
    second = cache.place_private(reader, at(0), 1)
    assert torch.cat((first.positions, second.positions))[:, 0].tolist() == [3, 4, 5]


def test_moving_from_the_master_equals_one_rotation_to_the_new_place() -> None:
    """Also after many moves: a rotated key is never rotated again."""
    cache = cache_of(12)
    slots = fill(cache, 3)
    master, values = cache.unrotated(slots), cache.values[:, :, slots].clone()
    for step in range(1, 60):
        slots = cache.move(slots, at(0, 1, 2) + 7 * step, master)
        cache.commit()
        cache.check()
    assert_close(cache.keys[:, :, slots], rotate(master, *angles(at(0, 1, 2) + 7 * 59)))
    assert_close(cache.values[:, :, slots], values, atol=0, rtol=0)
    assert cache.used == 3


def test_an_old_reader_keeps_the_old_version_of_a_moved_row() -> None:
    cache = cache_of(6)
    slots = fill(cache, 1)
    before = cache.keys[:, :, slots].clone()
    reader = cache.open_reader(cursor=1)
    new = cache.move(slots, at(50), cache.unrotated(slots))
    cache.commit()
    mine = cache.place_private(reader, at(0), 1)
    seen = cache.visible(mine, cache.extent)[0]
    assert seen[slots] and not seen[new]
    assert_close(cache.keys[:, :, slots], before, atol=0, rtol=0)


def test_shifting_everything_changes_no_score() -> None:
    cache = cache_of(8)
    slots = fill(cache, 4, start=1000)
    reader = cache.open_reader(cursor=1004)
    private = cache.place_private(reader, at(0), 1)
    cache.keys[:, :, private.slots] = torch.randn(2, 1, 1, 4)
    query = rotate(torch.randn(2, 1, 1, 4), *angles(at(1005)))
    rows = torch.cat((slots, private.slots))
    before = query @ cache.keys[:, :, rows].mT
    cache.shift(-1000)
    cos, sin = angles(at(-1000))
    assert_close(rotate(query, cos, sin) @ cache.keys[:, :, rows].mT, before, atol=1e-4, rtol=1e-4)
    assert cache.position[rows][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert cache.readers[reader].cursor == 5


def test_check_notices_a_lost_slot() -> None:
    cache = cache_of(4)
    slots = fill(cache, 2)
    cache.death[slots[0]] = 1
    with pytest.raises(AssertionError, match="not accounted for"):
        cache.check()


def test_free_slots_are_invisible() -> None:
    cache = cache_of(4)
    fill(cache, 2)
    rows = cache.place(at(2))
    seen = cache.visible(rows, 4)[0]
    assert seen.tolist() == [True, True, True, False]
    assert cache.reader.tolist() == [SHARED, SHARED, SHARED, FREE]


def test_nbytes_counts_keys_and_values() -> None:
    cache = cache_of(4)
    assert cache.shape.nbytes == cache.keys.nbytes + cache.values.nbytes
