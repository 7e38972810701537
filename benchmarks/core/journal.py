"""Results on disk: appended one by one, so that a killed run loses and repeats none.

A run's folder holds, for each shard, `run*.json` (how it was made), `results*.jsonl` (the same for equal runs, byte
for byte) and `costs*.jsonl` (what it took).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from streamvlm.benchmarks.core.records import Cost, Result

T = TypeVar("T", Result, Cost)
STAMP = "stamp"  # the part of run.json that must agree between starts and shards


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 0; videos are dealt out to the parts in turn."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"a shard is 1/n to n/n, got {self.index + 1}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2/4` is the second of four."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"a shard is written i/n, as in 1/4, got {text!r}")
        return cls(int(index) - 1, int(count))

    @property
    def suffix(self) -> str:
        """What tells its files from those of other shards."""
        return "" if self.count == 1 else f".{self.index + 1}-of-{self.count}"


WHOLE = Shard()


class Journal:
    """The results of one shard, open for more."""

    def __init__(self, folder: Path, shard: Shard, start: dict[str, Any]) -> None:
        """`start` holds `stamp` and anything else about this start.

        Raises:
            ValueError: the folder holds a run that was made differently.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._results = folder / f"results{shard.suffix}.jsonl"
        self._costs = folder / f"costs{shard.suffix}.jsonl"
        _begin(folder / f"run{shard.suffix}.json", start)
        kept = _mend(self._results, Result.parse)
        _mend(self._costs, Cost.parse)
        self.done = {result.id for result in kept}

    def add(self, result: Result, cost: Cost) -> None:
        """Keep one outcome, for good when this returns."""
        assert result.id not in self.done, f"{result.id} has a result"
        _append(self._costs, cost.line())
        _append(self._results, result.line())
        self.done.add(result.id)

    def forget_failed(self) -> int:
        """Drop the results of failed samples, to try them again; how many."""
        results = _lines(self._results, Result.parse)
        kept = [r for r in results if r.status != "failed"]
        _replace(self._results, "".join(r.line() for r in kept))
        self.done = {r.id for r in kept}
        return len(results) - len(kept)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished or unfinished run, all shards together."""

    stamp: dict[str, Any]
    starts: tuple[dict[str, Any], ...]
    results: dict[str, Result]
    costs: dict[str, Cost]


def load(folder: Path) -> Run:
    """All shards of a run.

    Raises:
        ValueError: there is no run, its shards were made differently, or they overlap.
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("run*.json"))]
    if not runs:
        raise ValueError(f"{folder} holds no run: there is no run.json in it")
    for other in runs[1:]:
        _agree(folder, runs[0][STAMP], other[STAMP])
    results: dict[str, Result] = {}
    for path in sorted(folder.glob("results*.jsonl")):
        for result in _lines(path, Result.parse):
            if result.id in results:
                raise ValueError(f"{folder} holds two results for {result.id}; the folder mixes runs")
            results[result.id] = result
    costs = {c.id: c for path in sorted(folder.glob("costs*.jsonl")) for c in _lines(path, Cost.parse)}
    return Run(runs[0][STAMP], tuple(s for run in runs for s in run["starts"]), results, costs)


def _begin(path: Path, start: dict[str, Any]) -> None:
    stamp, rest = start[STAMP], {k: v for k, v in start.items() if k != STAMP}
    starts = [rest]
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        _agree(path, before[STAMP], stamp)
        starts = [*before["starts"], rest]
    _replace(path, json.dumps({STAMP: stamp, "starts": starts}, indent=2) + "\n")


def _agree(where: Path, one: dict[str, Any], other: dict[str, Any]) -> None:
    other = json.loads(json.dumps(other))
    differs = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
    if differs:
        what = "; ".join(f"{k}: {one.get(k)!r} and {other.get(k)!r}" for k in differs)
        raise ValueError(f"{where} holds a run that was made differently ({what}); use another folder")


def _mend(path: Path, parse: Callable[[str], T]) -> list[T]:
    """The whole lines of a file; a last one that a kill cut short is taken off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(path, len(whole))
    return _lines(path, parse)


def _lines(path: Path, parse: Callable[[str], T]) -> list[T]:
    if not path.exists():
        return []
    return [parse(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def write_results(path: Path, results: Iterable[Result]) -> None:
    """One file of results, as merging writes it."""
    _replace(path, "".join(result.line() for result in results))
