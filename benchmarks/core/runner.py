"""One run: which samples, by which shard, with progress, every outcome kept as soon as it is there."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamvlm import StreamVLMError
from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.journal import WHOLE, Journal, Shard
from streamvlm.benchmarks.core.players import ClipPlayer, ConstantPlayer, Outcome, Player, Setting, failed
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Sample
from streamvlm.benchmarks.core.sharing import WATCHING, Part, SharedPlayer
from streamvlm.benchmarks.core.streaming import StreamPlayer

log = logging.getLogger("streamvlm.benchmarks")
EVERY = 15.0  # seconds between two lines of progress
PLAYERS: dict[str, type[Player]] = {
    "clip": ClipPlayer,
    "blind": ClipPlayer,
    "stream": StreamPlayer,
    "constant": ConstantPlayer,
}


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run."""

    benchmark: Benchmark
    samples: Sequence[Sample]  # of all shards
    videos: Path | None
    shard: Shard = WHOLE


def select(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """`limit` samples spread evenly over tasks and, within a task, over the file; all without a limit."""
    if limit is None or limit >= len(samples):
        return list(samples)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    tasks: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        tasks[sample.group, sample.task].append(sample)
    chosen: set[str] = set()
    for task, room in zip(tasks.values(), _rooms([len(t) for t in tasks.values()], limit), strict=True):
        chosen |= {task[k * len(task) // room].id for k in range(room)}
    return [s for s in samples if s.id in chosen]


def _rooms(sizes: Sequence[int], limit: int) -> list[int]:
    """How many of each, as equal as their sizes allow, `limit` in all."""
    rooms = [0] * len(sizes)
    while sum(rooms) < limit:
        for k, size in enumerate(sizes):
            if rooms[k] < size and sum(rooms) < limit:
                rooms[k] += 1
    return rooms


def by_video(samples: Sequence[Sample], shard: Shard) -> dict[str, list[Sample]]:
    """A shard's share, video by video in order of appearance."""
    videos: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        videos[sample.video].append(sample)
    names = list(videos)[shard.index :: shard.count]
    return {name: videos[name] for name in names}


def run(work: Work, setting: Setting, journal: Journal) -> None:
    """Play what has no result yet; every sample of the shard has one when this returns."""
    videos = by_video(work.samples, work.shard)
    todo = {v: [s for s in group if s.id not in journal.done] for v, group in videos.items()}
    progress = Progress(sum(map(len, videos.values())), sum(map(len, todo.values())))
    player = PLAYERS[setting.protocol.replay](setting)
    for video, group in todo.items():
        for result, cost in _play(work, player, video, group) if group else ():
            journal.add(result, cost)
            progress.tick(result.status == "failed")
    progress.end()


@dataclass(frozen=True, slots=True)
class Asking:
    """One way of asking on a watching that several share."""

    name: str
    protocol: Protocol
    samples: Sequence[Sample]  # of all shards
    journal: Journal

    def left(self, video: str) -> list[Sample]:
        """What it has still to ask of a video."""
        return [s for s in self.samples if s.video == video and s.id not in self.journal.done]


def share(work: Work, setting: Setting, ways: Sequence[Asking]) -> None:
    """Play each video once and ask what has no result yet in every way; every sample of the shard has one in each when
    this returns. The samples of `work` are those of all ways."""
    videos = by_video(work.samples, work.shard)
    parts = {v: [Part(way.name, way.protocol, way.left(v)) for way in ways] for v in videos}
    journals = {way.name: way.journal for way in ways}
    todo = sum(len(part.samples) for group in parts.values() for part in group)
    progress = Progress(sum(s.video in videos for way in ways for s in way.samples), todo)
    player = SharedPlayer(setting)
    for video, group in videos.items():
        if any(part.samples for part in parts[video] if part.name != WATCHING):
            footage = work.benchmark.footage(video, work.videos)
            for name, (result, cost) in player.share(group, parts[video], footage):
                journals[name].add(result, cost)
                progress.tick(result.status == "failed")
    progress.end()


def _play(work: Work, player: Player, video: str, group: Sequence[Sample]) -> Iterator[Outcome]:
    try:
        footage = work.benchmark.footage(video, work.videos)
    except StreamVLMError as error:
        yield from (failed(sample, error) for sample in group)
        return
    yield from player.play(group, footage)


class Progress:
    """Lines on the log: how far, how fast, how long still."""

    def __init__(self, total: int, todo: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._todo, self._clock = total, todo, clock
        self._done = self._failed = 0
        self._begun = self._said = clock()
        if todo < total:
            log.info("%d of %d samples have results already", total - todo, total)

    def tick(self, bad: bool) -> None:
        """One more sample is done."""
        self._done += 1
        self._failed += bad
        if self._clock() - self._said >= EVERY:
            self.say()

    def say(self) -> None:
        """Where it stands."""
        self._said = self._clock()
        log.info("%s", self.text())

    def text(self) -> str:
        """Done, speed, and the time left at that speed."""
        done = self._total - self._todo + self._done
        each = (self._clock() - self._begun) / max(self._done, 1)
        left = readable(each * (self._todo - self._done))
        lost = f", {self._failed} failed" if self._failed else ""
        return f"{done}/{self._total} samples, {each:.2f} s each, {left} left{lost}"

    def end(self) -> None:
        """The last line."""
        if self._todo:
            self.say()


def readable(seconds: float) -> str:
    """As people say it: `2 h 05 min`."""
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds % 60):02d} s" if minutes else f"{int(seconds)} s"


def in_order(samples: Sequence[Sample], results: Mapping[str, object]) -> list[Sample]:
    """The samples that have a result, in the order of the benchmark."""
    return [s for s in samples if s.id in results]
