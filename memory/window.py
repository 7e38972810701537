"""Window: the segments a stream keeps in its SlotCache, and how they move as others leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.errors import BudgetError
from streamvlm.memory.blocks import About
from streamvlm.memory.leaving import Leaving
from streamvlm.memory.policies import WindowPolicy
from streamvlm.memory.rows import Rows
from streamvlm.memory.slots import FOREVER, SHARED, SlotCache
from streamvlm.types import Kind, Segment


@dataclass(slots=True, eq=False)
class WindowEntry:
    """One segment in the window."""

    segment: Segment | None  # kept only where the policy prefills again
    relative: Tensor  # int64 [n, 3] positions from the entry's start
    extent: int
    kind: Kind
    start: float  # seconds
    stop: float
    base: int  # rotary position of the entry's start
    slots: Tensor  # int64 [n]
    master: Tensor | None = None  # un-rotated keys, float32 [layers, kv_heads, n, head_dim]

    def __len__(self) -> int:
        return self.slots.numel()

    @property
    def sink(self) -> bool:
        """Sinks are never evicted."""
        return self.kind is Kind.SINK

    @property
    def movable(self) -> bool:
        """Sinks and text move forward when vision behind them leaves; vision stays where it was rotated."""
        return self.kind is not Kind.VISION


@dataclass(slots=True)
class TokenCount:
    """Where every token ever perceived is now: seen == window + stored + dropped."""

    seen: int = 0
    stored: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What stands before the first frame that cannot move, as one reader's snapshot has it."""

    slots: tuple[Tensor, ...]  # int64 [n] of each entry
    masters: tuple[Tensor, ...]  # their un-rotated keys


class Window:
    """One stream's perceived context. Owned by the engine thread.

    Each step is `advance` (evict, move sinks forward, give the new rows slots), the model's forward pass, `commit`.
    """

    def __init__(self, cache: SlotCache, policy: WindowPolicy, *, max_tokens: int, rebase_at: int = 8192) -> None:
        self.cache = cache
        self.policy = policy
        self.max_tokens = max_tokens
        self.rebase_at = rebase_at
        self.entries: list[WindowEntry] = []
        self.cursor = 0  # next rotary position
        self.rebases = 0  # times all positions were shifted back
        self.count = TokenCount()
        self.on_evict: Callable[[Leaving], bool] | None = None  # takes what leaves; False if it could not
        self._seen = 0  # the cursor as of the last commit
        self._frames = 0
        self._heads: dict[int, Head] = {}
        self._pending: list[WindowEntry] = []

    def __len__(self) -> int:
        """Tokens in the window."""
        return sum([e.slots.numel() for e in self.entries])  # asked several times a step, and len() is slow there

    @property
    def spans(self) -> list[tuple[float, float]]:
        """Stretches of stream time [start, stop) whose frames are in the window, merged, in order."""
        merged: list[tuple[float, float]] = []
        for entry in self.entries:
            if entry.stop <= entry.start:
                continue
            if merged and entry.start <= merged[-1][1] + 1e-3:
                merged[-1] = (merged[-1][0], max(merged[-1][1], entry.stop))
            else:
                merged.append((entry.start, entry.stop))
        return merged

    @property
    def frame_times(self) -> list[float]:
        """Stream time, in seconds, at which each vision entry of the window starts."""
        return [e.start for e in self.entries if e.stop > e.start]

    def slots_needed(self, segments: Sequence[Segment]) -> int:
        """Free slots `advance(segments)` may take: the new rows and new versions of whatever moves."""
        again = len(self) if self.policy.recompute else sum(len(e) for e in self.entries if e.movable)
        return again + sum(len(s) for s in segments)

    def advance(self, segments: Sequence[Segment]) -> list[tuple[Segment, Rows]]:
        """Make room for `segments` and place them; what is returned is to be prefilled, in this order.

        Raises:
            BudgetError: they cannot fit even an otherwise empty window, or an unbounded policy is out of slots.
        """
        self._evict(segments)
        self.count.seen += sum(len(s) for s in segments)
        if self.policy.recompute:
            kept = [e.segment for e in self.entries if e.segment is not None]
            self._kill(self.entries)
            self.entries, self.cursor = [], 0
            segments = [*kept, *segments]
        else:
            self._pack_before_first_frame()
        placed = []
        for segment in segments:
            entry, rows = self._place(segment)
            self.entries.append(entry)
            self._pending.append(entry)
            placed.append((segment, rows))
        return placed

    def commit(self) -> None:
        """The step has written the new rows: keep masters of what may move, start the new epoch, re-base if due."""
        if not self.policy.recompute:
            for entry in self._pending:
                if entry.movable:
                    entry.master = self.cache.unrotated(entry.slots)
        self._pending = []
        self.cache.commit()
        if self.cursor > self.rebase_at:
            self._rebase()
        self._seen = self.cursor

    def open_reader(self) -> int:
        """A reader that sees the window as of now."""
        reader = self.cache.open_reader(self.cursor)
        entries = [] if self.policy.recompute else self._before_first_frame()
        masters = tuple(e.master for e in entries if e.master is not None)
        self._heads[reader] = Head(tuple(e.slots for e in entries), masters)
        return reader

    def fork_reader(self, reader: int) -> int:
        """A reader that sees the window as another one does, however long ago that was opened."""
        fork = self.cache.fork_reader(reader)
        self._heads[fork] = self._heads[reader]
        return fork

    def decouple(self, reader: int, gap: int) -> None:
        """Count a reader's positions by themselves, from `gap` past the first row that it sees."""
        state = self.cache.readers[reader]
        state.cursor = state.begun = gap + min((e.base for e in self.entries), default=0)

    def follow(self, reader: int, *, together: bool) -> None:
        """Let a reader see the window as of the last commit. `together`: its next row stands beside the next frame."""
        if self.cache.follow(reader) and together:
            state = self.cache.readers[reader]
            state.cursor = max(state.cursor, self._seen)

    def close_reader(self, reader: int) -> None:
        """Forget a reader and give its slots back."""
        del self._heads[reader]
        self.cache.close_reader(reader)

    def head_of(self, reader: int) -> Head:
        """What stands before the first frame that cannot move, as the reader's snapshot has it."""
        return self._heads[reader]

    def _before_first_frame(self) -> list[WindowEntry]:
        first = next((i for i, e in enumerate(self.entries) if not e.movable), len(self.entries))
        return self.entries[:first]

    def check(self) -> None:
        """Assert that every token and every slot is accounted for. Call it between steps."""
        self.cache.check()
        assert self.count.seen == len(self) + self.count.stored + self.count.dropped
        assert len(self) <= self.max_tokens
        visible = (self.cache.reader == SHARED) & (self.cache.death == FOREVER)
        mine = torch.cat([e.slots for e in self.entries]) if self.entries else torch.empty(0).long()
        assert torch.equal(visible.nonzero().squeeze(1), mine.sort().values), "visible slots are not the window's"
        for entry in self.entries:
            expected = entry.relative + entry.base
            assert torch.equal(self.cache.position[entry.slots], expected), "a slot is not where its entry says"
            assert entry.base + entry.extent <= self.cursor

    def _evict(self, segments: Sequence[Segment]) -> None:
        now = max(s.stop for s in segments)
        candidates = [e for e in self.entries if not e.sink]
        gone = [candidates[i] for i in self.policy.evict(candidates, now)]
        size = len(self) + sum(len(s) for s in segments) - sum(len(e) for e in gone)
        for entry in candidates:
            if size <= self.max_tokens:
                break
            if self.policy.bounded and entry not in gone:
                gone.append(entry)
                size -= len(entry)
        if size > self.max_tokens:
            raise BudgetError(
                f"the window would hold {size} tokens and {type(self.policy).__name__} may keep "
                f"{self.max_tokens}; give it more capacity or choose a bounded policy"
            )
        for entry in gone:
            if self.on_evict is not None and not self.policy.recompute and self.on_evict(self.copy_of(entry)):
                self.count.stored += len(entry)
            else:
                self.count.dropped += len(entry)
        self._kill(gone)
        self.entries = [e for e in self.entries if e not in gone]

    def hand_over(self) -> None:
        """The stream is closed: offer what was seen and has not left yet to whoever takes what leaves."""
        for entry in self.entries if self.on_evict is not None and not self.policy.recompute else ():
            if entry.stop > entry.start:
                assert self.on_evict is not None
                self.on_evict(self.copy_of(entry))

    def copy_of(self, entry: WindowEntry) -> Leaving:
        """What of an entry can be kept elsewhere."""
        cache, at = self.cache, entry.slots.to(self.cache.shape.device)
        kind = Kind.TEXT if entry.kind is Kind.TEXT else Kind.VISION
        about = About(entry.relative, entry.extent, kind, entry.start, entry.stop)
        values = cache.values.index_select(2, at)
        if entry.master is not None:
            return Leaving(entry.master, values, about, None, cache.rotary)
        return Leaving(cache.keys.index_select(2, at), values, about, entry.base, cache.rotary)

    def _kill(self, entries: Sequence[WindowEntry]) -> None:
        if entries:
            self.cache.kill(torch.cat([e.slots for e in entries]))

    def _pack_before_first_frame(self) -> None:
        """Close the hole that eviction left by moving the sinks and text before it forward (StreamingVLM's
        contiguous positions; only differences matter, and these are far fewer rows than the vision after it)."""
        before = self._before_first_frame()
        if len(before) == len(self.entries):
            return
        end = self.entries[len(before)].base
        for entry in reversed(before):
            base = end - entry.extent
            if base != entry.base:
                assert entry.master is not None
                entry.slots = self.cache.move(entry.slots, entry.relative + base, entry.master)
                entry.base = base
            end = base

    def _place(self, segment: Segment) -> tuple[WindowEntry, Rows]:
        kind = self._kind(segment)
        rows = self.cache.place(segment.positions + self.cursor)
        kept = segment if self.policy.recompute else None
        entry = WindowEntry(
            kept, segment.positions, segment.extent, kind, segment.start, segment.stop, self.cursor, rows.slots
        )
        self.cursor += segment.extent
        return entry, rows

    def _kind(self, segment: Segment) -> Kind:
        if segment.kind is Kind.SINK:
            return Kind.SINK if self.policy.keeps_prefix else Kind.TEXT
        if segment.kind is Kind.VISION and not self.policy.recompute:
            self._frames += 1
            return Kind.SINK if self._frames <= self.policy.sink_frames else Kind.VISION
        return segment.kind

    def _rebase(self) -> None:
        used = self.cache.position[self.cache.reader >= SHARED]
        lowest = int(used.min())
        if lowest < self.rebase_at // 2:  # the window itself spans the limit: nothing to gain
            return
        self.cache.shift(-lowest)
        self.rebases += 1
        self.cursor -= lowest
        for entry in self.entries:
            entry.base -= lowest
