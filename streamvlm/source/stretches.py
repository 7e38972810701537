"""Where a file can be cut for decoding in parallel: stretches between keyframes, found without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from streamvlm.source.reader import VideoReader
from streamvlm.source.sampling import Sampler

INDEXED = frozenset({"mov", "matroska", "webm"})  # formats in which seeking is exact
SHORTEST = 4.0  # seconds of a stretch: seeking costs something too


@dataclass(frozen=True, slots=True)
class Stretch:
    """The pictures with start <= pts < stop, in ticks of the track."""

    seek: int  # the keyframe that decoding begins at
    start: int
    stop: int | None  # None: to the end
    wanted: frozenset[int] | None  # numbers of the due times whose first picture is here; None: every picture

    def holds(self, ticks: int) -> bool:
        """Whether a picture belongs to it."""
        return ticks >= self.start and (self.stop is None or ticks < self.stop)


@dataclass(frozen=True, slots=True)
class Cutting:
    """A whole file, cut."""

    stretches: tuple[Stretch, ...]
    first: int  # ticks of the first picture, which is stream time 0
    time_base: Fraction  # seconds of a tick

    def seconds(self, ticks: int) -> float:
        """Stream time."""
        return float(ticks * self.time_base) - float(self.first * self.time_base)


@dataclass(frozen=True, slots=True)
class _Key:
    ticks: int
    open: bool  # pictures that are shown before it are decoded after it


def cut(reader: VideoReader, fps: float | None) -> Cutting | None:
    """Read all packets of a file and cut it; None where it is not plain enough to be cut exactly.

    Plain: an indexed format, at least two keyframes, every packet with a timestamp, keyframes in rising order, nothing
    broken at this level.
    """
    if INDEXED.isdisjoint(reader.format):
        return None
    keys: list[_Key] = []
    shown: list[int] = []
    base: Fraction | None = None
    for packet in reader.packets():
        if not reader.shows(packet) or packet.size == 0:
            continue
        if packet.pts is None or packet.time_base is None:
            return None
        base = packet.time_base
        if packet.is_keyframe:
            keys.append(_Key(packet.pts, False))
        elif keys and packet.pts < keys[-1].ticks:
            keys[-1] = _Key(keys[-1].ticks, True)
        if not packet.is_discard:
            shown.append(packet.pts)
    rising = all(a.ticks < b.ticks for a, b in pairwise(keys))
    if base is None or reader.cut_off or len(keys) < 2 or not rising or not shown:
        return None
    shown.sort()
    return _stretches(keys, shown, base, fps)


def _stretches(keys: list[_Key], shown: list[int], base: Fraction, fps: float | None) -> Cutting:
    starts = [keys[0]]
    seeks = [keys[0].ticks]
    for before, key in pairwise(keys):
        if (key.ticks - starts[-1].ticks) * base >= SHORTEST:
            starts.append(key)
            seeks.append(before.ticks if key.open else key.ticks)
    first = shown[0]
    bounds = [min(first, starts[0].ticks), *(key.ticks for key in starts[1:])]
    due = _due_times(shown, first, base, fps)
    made = []
    for i, (seek, start) in enumerate(zip(seeks, bounds, strict=True)):
        stop = bounds[i + 1] if i + 1 < len(bounds) else None
        wanted = None if due is None else frozenset(n for n, t in due.items() if t >= start and (not stop or t < stop))
        made.append(Stretch(seek, start, stop, wanted))
    return Cutting(tuple(made), first, base)


def _due_times(shown: list[int], first: int, base: Fraction, fps: float | None) -> dict[int, int] | None:
    """Number of every due time that has a picture -> ticks of its first picture; by the rule of `Sampler`."""
    if fps is None:
        return None
    sampler, begin = Sampler(fps), float(first * base)
    found = {}
    for ticks in shown:
        pts = float(ticks * base) - begin
        if sampler.takes(pts):
            found[sampler.number(pts)] = ticks
    return found
