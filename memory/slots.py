"""SlotCache: a fixed set of KV slots with snapshot isolation.

Attention does not care in which order keys lie in memory, only about each key's rotary position and about who may
see it. So a stream's cache is a preallocated set of slots and a few arrays with one entry per slot, shared by all
layers. A query row of reader r, as of epoch e, written as number o, sees slot s iff

    (reader[s] == r  or  (reader[s] == SHARED and birth[s] <= e < death[s]))  and  order[s] <= o

Evicting a slot only sets its death; it is reclaimed when no live reader's epoch needs it. What perception does can
therefore never change what an answer sees, and an answer's rows are invisible to perception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamvlm.errors import BudgetError
from streamvlm.memory.rows import DeadSlots, LayerRows, ReaderState, Rows

FREE, SHARED = -1, 0
FOREVER = torch.iinfo(torch.int64).max

Rotary = Callable[[Tensor], tuple[Tensor, Tensor]]
"""int64 positions [n, 3] to float32 cos and sin [n, head_dim]. The engine's thread and the spiller's call it."""


def rotate(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate keys [..., n, head_dim] by angles [n, head_dim], in float32."""
    keys = keys.float()
    half = keys.shape[-1] // 2
    turned = torch.cat((-keys[..., half:], keys[..., :half]), dim=-1)
    return (keys * cos).add_(turned.mul_(sin))


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Everything that fixes a cache's size in memory."""

    layers: int
    kv_heads: int
    head_dim: int
    capacity: int  # slots
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values together."""
        return 2 * self.layers * self.kv_heads * self.capacity * self.head_dim * self.dtype.itemsize


class SlotCache:
    """Keys, values and per-slot metadata of one stream. Owned by the engine thread; not thread-safe.

    Keys are stored rotated. Metadata lives on the CPU, keys and values on the shape's device.
    """

    def __init__(self, shape: CacheShape, rotary: Rotary) -> None:
        size = (shape.layers, shape.kv_heads, shape.capacity, shape.head_dim)
        self.shape = shape
        self.rotary = rotary
        self.keys = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros_like(self.keys)
        self.position = torch.zeros(shape.capacity, 3, dtype=torch.int64)
        self.reader = torch.full((shape.capacity,), FREE, dtype=torch.int64)
        self.birth, self.death, self.order = (torch.zeros_like(self.reader) for _ in range(3))
        self.readers: dict[int, ReaderState] = {}
        self.epoch = 0
        self.peak_used = 0
        self._high = 0  # slots from here on were never used: many where much may be recalled, and not to be looked at
        self._dead: list[DeadSlots] = []
        self._written = 0
        self._next_reader = 1

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return int((self.reader[: self._high] != FREE).sum())

    @property
    def free(self) -> int:
        """Slots ready to be allocated."""
        return self.shape.capacity - self.used

    @property
    def pinned(self) -> int:
        """Evicted slots kept only because a live reader still sees them."""
        return sum(len(d.slots) for d in self._dead)

    @property
    def private(self) -> int:
        """Slots that hold readers' own rows."""
        return int((self.reader[: self._high] > SHARED).sum())

    @property
    def extent(self) -> int:
        """One past the highest slot in use: attention need not look further."""
        used = (self.reader[: self._high] != FREE).nonzero()
        return int(used[-1]) + 1 if len(used) else 0

    def allocate(self, n: int) -> Tensor:
        """The `n` lowest free slots, int64 [n].

        Raises:
            BudgetError: fewer than `n` are free; nothing has changed.
        """
        slots = (self.reader[: self._high + n] == FREE).nonzero().squeeze(1)[:n]
        if len(slots) < n:
            raise BudgetError(f"{n} slots wanted, {len(slots)} of {self.shape.capacity} free")
        if n:
            self._high = max(self._high, int(slots[-1]) + 1)
        return slots

    def place(self, positions: Tensor) -> Rows:
        """Give shared slots to rows of the coming epoch, at absolute positions [n, 3]."""
        rows = self._occupy(positions, SHARED, self.epoch + 1)
        self.birth[rows.slots] = self.epoch + 1
        self.death[rows.slots] = FOREVER
        return rows

    def place_private(self, reader: int, positions: Tensor, extent: int) -> Rows:
        """Give private slots to a reader's rows at positions [n, 3] relative to its cursor."""
        state = self.readers[reader]
        rows = self._occupy(positions + state.cursor, reader, state.epoch)
        state.slots.append(rows.slots)
        state.cursor += extent
        return rows

    def load(self, reader: int, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Private slots for rows from elsewhere, rotated once, to absolute positions [n, 3].

        `keys`, un-rotated, and `values` are [layers, kv_heads, n, head_dim]. The reader's cursor does not move.
        """
        state, device = self.readers[reader], self.shape.device
        rows = self._occupy(positions, reader, state.epoch)
        at = rows.slots.to(device)
        self.keys[:, :, at] = rotate(keys.to(device), *self.rotary(positions.to(device))).to(self.shape.dtype)
        self.values[:, :, at] = values.to(device, self.shape.dtype)
        state.slots.append(rows.slots)

    def load_layers(self, reader: int, layers: Sequence[LayerRows]) -> None:
        """As `load`, of rows that differ from layer to layer. Where a layer has fewer, the first slots stay empty."""
        state, device = self.readers[reader], self.shape.device
        longest = max(layers, key=lambda rows: len(rows.positions))
        rows = self._occupy(longest.positions, reader, state.epoch)
        state.slots.append(rows.slots)
        for layer, part in enumerate(layers):
            empty = len(rows.slots) - len(part.positions)
            if empty:
                state.absent[layer] = rows.slots[:empty]
            at, positions = rows.slots[empty:].to(device), part.positions.to(device)
            self.keys[layer][:, at] = rotate(part.keys.to(device), *self.rotary(positions)).to(self.shape.dtype)
            self.values[layer][:, at] = part.values.to(device, self.shape.dtype)

    def unplace(self, reader: int, extent: int) -> None:
        """Take back all private rows of a reader and the `extent` they advanced its cursor by."""
        state = self.readers[reader]
        for slots in state.slots:
            self.reader[slots] = FREE
        state.slots.clear()
        state.absent.clear()
        state.cursor -= extent

    def _occupy(self, positions: Tensor, reader: int, epoch: int) -> Rows:
        slots = self.allocate(len(positions))
        order = torch.arange(len(slots)) + self._written
        self._written += len(slots)
        self.position[slots] = positions
        self.reader[slots] = reader
        self.order[slots] = order
        self.peak_used = max(self.peak_used, self.used)
        return Rows(slots, positions, reader, epoch, order)

    def move(self, slots: Tensor, positions: Tensor, master: Tensor) -> Tensor:
        """New versions of shared slots at new positions, visible from the coming epoch; the old ones die then.

        `master` holds the un-rotated keys, float32 [layers, kv_heads, n, head_dim]: a rotated key is never
        rotated again, so moves do not drift. Returns the new slots.
        """
        new = self.allocate(len(slots))
        self.order[new] = self.order[slots]
        self.reader[new] = SHARED
        self.birth[new] = self.epoch + 1
        self.death[new] = FOREVER
        self.position[new] = positions
        device = self.shape.device
        cos, sin = self.rotary(positions.to(device))
        new_at, old_at = new.to(device), slots.to(device)
        self.keys[:, :, new_at] = rotate(master, cos, sin).to(self.shape.dtype)
        self.values[:, :, new_at] = self.values[:, :, old_at]
        self.kill(slots)
        self.peak_used = max(self.peak_used, self.used)
        return new

    def unrotated(self, slots: Tensor) -> Tensor:
        """Keys of `slots` with their rotation undone, float32 [layers, kv_heads, n, head_dim]."""
        cos, sin = self.rotary(self.position[slots].to(self.shape.device))
        return rotate(self.keys[:, :, slots.to(self.shape.device)], cos, -sin)

    def kill(self, slots: Tensor) -> None:
        """Evict shared slots as of the coming epoch; their memory returns when no reader needs it."""
        if len(slots) == 0:
            return
        self.death[slots] = self.epoch + 1
        for birth in sorted(set(self.birth[slots].tolist())):
            same = slots[self.birth[slots] == birth]
            self._dead.append(DeadSlots(same, birth, self.epoch + 1))
        self.reclaim()

    def reclaim(self) -> None:
        """Free every dead slot that no live reader sees."""
        epochs = {state.epoch for state in self.readers.values()}
        kept = []
        for dead in self._dead:
            if any(dead.birth <= epoch < dead.death for epoch in epochs):
                kept.append(dead)
            else:
                self.reader[dead.slots] = FREE
        self._dead = kept

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store one layer's rotated keys and values [kv_heads, n, head_dim] of the step's rows."""
        self.keys[layer].index_copy_(1, slots, keys.to(self.shape.dtype))
        self.values[layer].index_copy_(1, slots, values.to(self.shape.dtype))

    def visible(self, rows: Rows, extent: int) -> Tensor:
        """bool [n, extent]: which slots each row sees."""
        reader, birth, death = self.reader[:extent], self.birth[:extent], self.death[:extent]
        seen = (reader == SHARED) & (birth <= rows.epoch) & (rows.epoch < death)
        if rows.reader != SHARED:
            hidden = self.readers[rows.reader].hidden
            if hidden is not None:
                seen[hidden] = False
            seen = seen | (reader == rows.reader)
        return seen & (self.order[:extent] <= rows.order.unsqueeze(1))

    def open_reader(self, cursor: int) -> int:
        """Start a reader that sees the cache as of now; returns its id (> 0). O(1): nothing is copied."""
        reader = self._next_reader
        self._next_reader += 1
        self.readers[reader] = ReaderState(self.epoch, cursor, cursor)
        return reader

    def follow(self, reader: int) -> bool:
        """Let a reader see what has been committed since it was opened or last followed; whether that is anything.

        One that was shown rows from elsewhere stays where it is: they have their places among what it saw then.
        """
        state = self.readers[reader]
        if state.hidden is not None or state.epoch == self.epoch:
            return False
        state.epoch = self.epoch
        self.reclaim()
        return True

    def fork_reader(self, reader: int) -> int:
        """Start a reader that sees the shared slots as of the same moment as another one does; returns its id."""
        other = self.readers[reader]
        fork = self.open_reader(other.begun)
        self.readers[fork].epoch = other.epoch
        return fork

    def close_reader(self, reader: int) -> None:
        """Forget a reader and free its private slots and whatever only it was still seeing."""
        for slots in self.readers.pop(reader).slots:
            self.reader[slots] = FREE
        self.reclaim()

    def commit(self) -> None:
        """Make the coming epoch the current one."""
        self.epoch += 1
        self.reclaim()

    def shift(self, delta: int) -> None:
        """Move every position, every reader's too, by `delta`: an equality up to rounding that keeps angles small."""
        used = (self.reader[: self._high] != FREE).nonzero().squeeze(1)
        self.position[used] += delta
        for state in self.readers.values():
            state.cursor += delta
            state.begun += delta
        cos, sin = self.rotary(torch.full((1, 3), delta, device=self.shape.device))
        at = used.to(self.shape.device)
        for layer in self.keys:
            layer[:, at] = rotate(layer[:, at], cos, sin).to(self.shape.dtype)

    def check(self) -> None:
        """Assert the accounting of slots: each is free, shared, dead but pinned, or one reader's."""
        dead = {int(s) for d in self._dead for s in d.slots}
        private = {int(s) for state in self.readers.values() for part in state.slots for s in part}
        for slot, reader in enumerate(self.reader.tolist()):
            assert (reader > SHARED) == (slot in private), f"slot {slot} belongs to reader {reader}"
            ended = reader == SHARED and int(self.death[slot]) != FOREVER
            assert ended == (slot in dead), f"slot {slot} died and is not accounted for"
            assert reader in (FREE, SHARED) or reader in self.readers
            assert reader == FREE or slot < self._high, f"slot {slot} is in use and was never given"
