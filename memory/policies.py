"""Window policies: which segments stay when a new one arrives. All behind one interface.

A policy sees the segments in stream order and names those to evict; it never looks at token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from streamvlm.types import Kind


class Entry(Protocol):
    """What a policy may know about a segment in the window."""

    @property
    def kind(self) -> Kind: ...
    @property
    def start(self) -> float: ...
    @property
    def stop(self) -> float: ...
    def __len__(self) -> int: ...


class WindowPolicy(Protocol):
    """Decides what leaves the window."""

    @property
    def sink_frames(self) -> int:
        """How many of the stream's first frames are sinks, never evicted."""

    @property
    def keeps_prefix(self) -> bool:
        """Whether the opening text is a sink."""

    @property
    def recompute(self) -> bool:
        """Whether the kept segments are prefilled again at every frame, as a fresh prompt."""

    @property
    def bounded(self) -> bool:
        """Whether the window's size has a limit by policy."""

    def evict(self, entries: Sequence[Entry], now: float) -> list[int]:
        """Indices of the non-sink `entries` (oldest first) that leave when the window's end moves to `now`."""


def _older_frames(entries: Sequence[Entry], start: float) -> list[int]:
    return [i for i, e in enumerate(entries) if e.kind is Kind.VISION and e.stop <= start + 1e-6]


@dataclass(frozen=True, slots=True)
class SinkWindow:
    """Attention sinks, a short vision window and a long text window (StreamingLLM; StreamingVLM)."""

    seconds: float = 16.0
    text_tokens: int = 512
    sink_frames: int = 1
    keeps_prefix: ClassVar[bool] = True
    recompute: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    def evict(self, entries: Sequence[Entry], now: float) -> list[int]:
        gone = _older_frames(entries, now - self.seconds)
        text = 0
        for i in range(len(entries) - 1, -1, -1):
            if entries[i].kind is Kind.TEXT:
                text += len(entries[i])
                if text > self.text_tokens:
                    gone.append(i)
        return sorted(gone)


@dataclass(frozen=True, slots=True)
class FullAttention:
    """Nothing leaves; the stream fails when its capacity is used up. The quality ceiling, not for endless streams."""

    sink_frames: ClassVar[int] = 0
    keeps_prefix: ClassVar[bool] = True
    recompute: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    def evict(self, entries: Sequence[Entry], now: float) -> list[int]:
        return []


@dataclass(frozen=True, slots=True)
class LastFrames:
    """Only the newest blocks, prefilled afresh: the strong simple baseline (SimpleStream's recent 4 frames)."""

    blocks: int = 4  # temporal patches
    sink_frames: ClassVar[int] = 0
    keeps_prefix: ClassVar[bool] = True
    recompute: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    def evict(self, entries: Sequence[Entry], now: float) -> list[int]:
        vision = [i for i, e in enumerate(entries) if e.kind is Kind.VISION]
        return vision[: max(0, len(vision) + 1 - self.blocks)]


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The last `seconds` of everything, without sinks.

    As is, even the prompt slides out. With `recompute` the window is prefilled again at every frame as a fresh
    prompt: exact, and quadratic in the window.
    """

    seconds: float = 16.0
    recompute: bool = False
    sink_frames: ClassVar[int] = 0
    bounded: ClassVar[bool] = True

    @property
    def keeps_prefix(self) -> bool:
        return self.recompute

    def evict(self, entries: Sequence[Entry], now: float) -> list[int]:
        start = now - self.seconds
        return [i for i, e in enumerate(entries) if e.stop <= start + 1e-6]
