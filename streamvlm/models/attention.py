"""How a packed step reaches the attention of an unmodified transformers model.

The step travels through two public extension points: a `Cache` whose `update` stores new rows in their slots, and a
registered attention function that lets every group of rows attend to its own stream's slots. Linear layers see one
packed matrix; attention runs once per group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache

from streamvlm.memory.rows import Rows
from streamvlm.memory.slots import SHARED, SlotCache, rotate

Backend = Literal["sdpa", "flex"]
ATTENTION_NAME = "streamvlm"
BLOCK = 128  # flex works in blocks of this many slots


@dataclass(slots=True, eq=False)
class Probe:
    """Gathers the mean un-rotated query of a question's rows, in every layer, over one or more steps."""

    total: list[Tensor]  # per layer float32 [heads, head_dim]
    rows: int = 0

    @classmethod
    def of(cls, layers: int) -> Probe:
        """Nothing seen yet."""
        return cls([torch.zeros(())] * layers)

    @property
    def query(self) -> Tensor:
        """float32 [layers, heads, head_dim]."""
        return torch.stack(self.total) / self.rows


@dataclass(frozen=True, slots=True, eq=False)
class Probing:
    """A probe's rows in one packed step."""

    probe: Probe
    rows: slice  # of the packed rows
    cos: Tensor  # float32 [n, head_dim] of their positions
    sin: Tensor

    def look(self, layer: int, query: Tensor) -> None:
        """Take one layer's rotated queries [heads, rows of the whole step, head_dim]."""
        mine = rotate(query[:, self.rows], self.cos, -self.sin)
        self.probe.total[layer] = self.probe.total[layer].to(mine.device) + mine.sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One stream's share of a packed step."""

    cache: SlotCache
    rows: slice  # of the packed rows
    slots: Tensor  # int64 [n] where the new keys and values go, on the device
    extent: int  # slots attended to: [0, extent)
    mask: Tensor | BlockMask  # sdpa: bool [1, 1, n, extent]; flex: the same as blocks
    probes: Sequence[Probing] = ()  # rows of the step whose queries are wanted
    masks: Mapping[int, Tensor | BlockMask] = field(default_factory=dict)  # of layers in which some slots are empty

    def attend(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """[1, heads, n, head_dim] for queries of the same shape."""
        keys = self.cache.keys[layer, None, :, : self.extent]
        values = self.cache.values[layer, None, :, : self.extent]
        gqa = query.shape[1] != keys.shape[1]
        mask = self.masks.get(layer, self.mask)
        if isinstance(mask, BlockMask):
            flex = _flex(query.device.type)
            out: Tensor = flex(query, keys, values, block_mask=mask, scale=scale, enable_gqa=gqa)
            return out
        return scaled_dot_product_attention(query, keys, values, mask, scale=scale, enable_gqa=gqa)


def _flex(device: str) -> Callable[..., Any]:
    """FlexAttention, compiled where that pays; on a CPU it runs as written, for tests."""
    chosen: Callable[..., Any] = _compiled_flex() if device == "cuda" else flex_attention
    return chosen


@cache
def _compiled_flex() -> Any:  # noqa: ANN401
    return torch.compile(flex_attention, dynamic=True)


def make_group(
    cache: SlotCache, rows: slice, parts: Sequence[Rows], backend: Backend, probes: Sequence[Probing] = ()
) -> Group:
    """Plan one stream's attention: `parts` are its rows in packed order."""
    device = cache.shape.device
    slots = torch.cat([p.slots for p in parts]).to(device)
    extent = cache.extent
    if backend == "flex":
        extent = min(cache.shape.capacity, -(-extent // BLOCK) * BLOCK)
        masks = {layer: _block_mask(cache, parts, extent, empty) for layer, empty in _absent(cache, parts).items()}
        return Group(cache, rows, slots, extent, _block_mask(cache, parts, extent), probes, masks)
    mask = torch.cat([cache.visible(p, extent) for p in parts])
    without = {layer: mask.index_fill(1, empty, False) for layer, empty in _absent(cache, parts).items()}
    on_device = {layer: one[None, None].to(device) for layer, one in without.items()}
    return Group(cache, rows, slots, extent, mask[None, None].to(device), probes, on_device)


def _absent(cache: SlotCache, parts: Sequence[Rows]) -> dict[int, Tensor]:
    """By layer, the slots int64 [n] of the readers of `parts` that hold nothing in it."""
    found: dict[int, list[Tensor]] = {}
    for reader in {p.reader for p in parts} - {SHARED}:
        for layer, slots in cache.readers[reader].absent.items():
            found.setdefault(layer, []).append(slots)
    return {layer: torch.cat(slots) for layer, slots in found.items()}


def _block_mask(cache: SlotCache, parts: Sequence[Rows], extent: int, absent: Tensor | None = None) -> BlockMask:
    device = cache.shape.device
    q_reader = torch.cat([torch.full_like(p.slots, p.reader) for p in parts]).to(device)
    q_epoch = torch.cat([torch.full_like(p.slots, p.epoch) for p in parts]).to(device)
    q_order = torch.cat([p.order for p in parts]).to(device)
    hidden = torch.zeros(len(parts), extent, dtype=torch.bool)
    for i, part in enumerate(parts):
        own = None if part.reader == SHARED else cache.readers[part.reader].hidden
        if own is not None:
            hidden[i, own] = True
    if absent is not None:
        hidden[:, absent] = True
    q_part = torch.cat([torch.full_like(p.slots, i) for i, p in enumerate(parts)]).to(device)
    hidden = hidden.to(device)
    columns = (cache.reader, cache.birth, cache.death, cache.order)
    reader, birth, death, order = (c[:extent].to(device) for c in columns)

    def sees(batch: Tensor, head: Tensor, q: Tensor, s: Tensor) -> Tensor:
        shared = (reader[s] == SHARED) & (birth[s] <= q_epoch[q]) & (q_epoch[q] < death[s])
        own = (q_reader[q] != SHARED) & (reader[s] == q_reader[q])
        return (shared | own) & ~hidden[q_part[q], s] & (order[s] <= q_order[q])

    return create_block_mask(sees, None, None, len(q_order), extent, device=device)


@runtime_checkable
class Attending(Protocol):
    """In the place of a step's groups: computes a pass's attention by itself, to see what it comes from."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """[1, heads, rows, head_dim] for queries of that shape and keys and values [1, kv_heads, rows, head_dim]."""


class StepCache(Cache):  # type: ignore[misc]
    """A transformers cache that stores one step's rows in the slots of their streams.

    Keys and values come back as they are: the attention function reads the slots itself.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__(layers=[])
        self.groups = groups

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write rotated keys and values [1, kv_heads, rows, head_dim] of one layer."""
        for group in self.groups:
            keys, values = key_states[0, :, group.rows], value_states[0, :, group.rows]
            group.cache.write(layer_idx, group.slots, keys, values)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are explicit, so transformers has nothing to count."""
        return 0


def step_attention(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    *,
    step: Sequence[Group] | Attending | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The registered attention function; `step` reaches it through the model's keyword arguments.

    Without a step it is plain masked attention, so that the same module also runs outside the engine.
    """
    if isinstance(step, Attending):
        return step.attend(query, key, value, scaling).transpose(1, 2).contiguous(), None
    if step is None:
        gqa, causal = query.shape[1] != key.shape[1], attention_mask is None
        out = scaled_dot_product_attention(
            query, key, value, attention_mask, is_causal=causal, scale=scaling, enable_gqa=gqa
        )
        return out.transpose(1, 2).contiguous(), None
    out = torch.empty_like(query)
    for group in step:
        for probing in group.probes:
            probing.look(module.layer_idx, query[0])
        out[:, :, group.rows] = group.attend(module.layer_idx, query[:, :, group.rows], scaling)
    return out.transpose(1, 2).contiguous(), None


@cache
def cache_argument(tower: Any) -> str:  # noqa: ANN401
    """What a text tower of this class calls its cache: `cache` from transformers 5.24 on."""
    return "cache" if "cache" in signature(tower.forward).parameters else "past_key_values"


def register_attention() -> str:
    """Make the attention function known to transformers; returns the name to load a text tower with."""
    AttentionInterface.register(ATTENTION_NAME, step_attention)
    return ATTENTION_NAME
