"""Is a download complete and sound? Every video is looked for, opened, and held against its questions' times."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm import SourceError
from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.clip import duration, pictures
from streamvlm.benchmarks.core.records import Sample

SLACK = 2.0  # seconds past the end of a video that a question may name
HEAD = 2**20  # bytes that are compared, beside the size
VIDEOS = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".flv", ".ts", ".m4v"})


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a download."""

    videos: int  # that are needed
    samples: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]  # video: why
    mistimed: tuple[str, ...]  # sample: what
    duplicates: tuple[str, ...]  # files that are the same as another
    unused: tuple[str, ...]  # videos in the folder that no sample names
    seconds: float  # of video, what is readable

    @property
    def complete(self) -> bool:
        """Whether every sample can be asked."""
        return not (self.missing or self.unreadable)

    def to_json(self, home: str) -> dict[str, Any]:
        """Counts, and the names of everything that is not as it should be."""
        found: dict[str, Any] = {"videos": self.videos, "samples": self.samples, "hours": round(self.seconds / 3600, 2)}
        for name in ("missing", "unreadable", "mistimed", "duplicates", "unused"):
            found[name] = list(getattr(self, name))
        return found | {"complete": self.complete, "get_it_from": home}


def prepare(benchmark: Benchmark, samples: Sequence[Sample], videos: Path) -> Findings:
    """Look at every video that the samples name.

    Raises:
        ValueError: the folder does not exist.
    """
    if not videos.is_dir():
        raise ValueError(f"{videos} is not a folder; get the videos from {benchmark.home}")
    wanted: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        wanted[sample.video].append(sample)
    missing = [name for name in wanted if not (videos / name).is_file()]
    lengths, unreadable = _lengths(videos, [name for name in wanted if name not in missing])
    there = {p.relative_to(videos).as_posix() for p in videos.rglob("*") if p.suffix.lower() in VIDEOS}
    return Findings(
        videos=len(wanted),
        samples=len(samples),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        mistimed=tuple(m for name, length in lengths.items() for m in _mistimed(wanted[name], length)),
        duplicates=tuple(_duplicates(videos, list(lengths))),
        unused=tuple(sorted(there - wanted.keys())),
        seconds=sum(lengths.values()),
    )


def _lengths(videos: Path, names: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Seconds of each video that can be read to its last second, and what is wrong with the others."""
    lengths: dict[str, float] = {}
    unreadable = []
    for name in names:
        try:
            length = duration(videos / name)
            for _ in pictures(videos / name, [0.0, max(0.0, length - 1.0)]):
                pass
            lengths[name] = length
        except SourceError as error:
            unreadable.append(f"{name}: {error.cause}")
    return lengths, unreadable


def _mistimed(samples: Sequence[Sample], length: float) -> list[str]:
    return [
        f"{s.id}: asked at {s.time:g} s, {s.video} ends at {length:.1f} s" for s in samples if s.time > length + SLACK
    ]


def _duplicates(videos: Path, names: Sequence[str]) -> list[str]:
    same: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in names:
        with (videos / name).open("rb") as file:
            same[(videos / name).stat().st_size, hashlib.sha256(file.read(HEAD)).hexdigest()].append(name)
    return [f"{', '.join(group[1:])}: the same as {group[0]}" for group in same.values() if len(group) > 1]
