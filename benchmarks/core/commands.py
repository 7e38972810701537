"""What the subcommands of `streamvlm bench` do, without a command line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamvlm import Agent, load_model
from streamvlm.benchmarks.core import journal, stamp
from streamvlm.benchmarks.core.audio import Ear, Subtitles, Transcriber
from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.compare import compare
from streamvlm.benchmarks.core.journal import WHOLE, Journal, Shard
from streamvlm.benchmarks.core.judge import Judge, Kept
from streamvlm.benchmarks.core.judged import JudgedBenchmark
from streamvlm.benchmarks.core.players import DEAF, Setting
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.runner import Asking, Work, run, select, share
from streamvlm.benchmarks.core.scores import RULES, Scores
from streamvlm.benchmarks.core.sharing import WATCHING, watched_as
from streamvlm.benchmarks.core.usage import usage
from streamvlm.benchmarks.registry import find
from streamvlm.config import Config

BASELINES = ("constant", "blind")
ROOM = 4096  # tokens of a question: some carry their history
BACKGROUND = 1024  # tokens that watches may take: their conditions are whole sentences


@dataclass(frozen=True, slots=True)
class RunOptions:
    """A run as somebody wants it."""

    protocol: str = "official"
    annotations: Path | None = None
    videos: Path | None = None
    out: Path = Path("runs/bench")
    limit: int | None = None
    shard: Shard = WHOLE
    retry: bool = False  # forget failed samples of an earlier start and try them again
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of the protocol


def choose(benchmark: Benchmark, options: RunOptions) -> Protocol:
    """The protocol of that name, with what was overridden; then it has another name.

    Raises:
        ValueError: there is none of that name, or a value is not allowed.
    """
    found = benchmark.protocols()
    if options.protocol not in found:
        raise ValueError(f"{benchmark.name} has no protocol {options.protocol!r}; it has {', '.join(found)}")
    changes = dict(options.overrides)
    if not changes:
        return found[options.protocol]
    name = "+".join([options.protocol, *(f"{k}={v}" for k, v in changes.items())])
    return replace(found[options.protocol], name=name, **changes)


def run_benchmark(benchmark: Benchmark, options: RunOptions, config: Config, ear: Ear = DEAF) -> None:
    """Run a shard, or go on with it.

    Raises:
        ValueError: wrong options, or the folder holds another run.
    """
    protocol = choose(benchmark, options)
    if benchmark.needs_files and options.videos is None and protocol.replay in ("clip", "stream"):
        raise ValueError(f"{benchmark.name} needs the folder of its videos (--videos): {benchmark.home}")
    samples = load(benchmark, options.annotations, options.limit)
    with _agent(protocol, config) as agent:
        found = stamp.stamp(benchmark, samples, protocol, config, options.annotations, agent)
        found["audio"] = ear.name if protocol.audio else None
        kept = Journal(options.out, options.shard, stamp.start(found, options.shard))
        if options.retry:
            kept.forget_failed()
        work = Work(benchmark, samples, options.videos, options.shard)
        run(work, Setting(protocol, agent, ear, benchmark.constant), kept)


@dataclass(frozen=True, slots=True)
class WayOfAsking:
    """A run that shares its watching with others."""

    benchmark: Benchmark  # the same streams as the others'; it may ask fewer things of them
    options: RunOptions


def run_shared(ways: Mapping[str, WayOfAsking], watching: Path, config: Config) -> None:
    """Run, or go on with, several ways of asking that see the same streams: each has the folder of its own options, as
    if it had been run alone. What the watching takes goes to the folder `watching`.

    Raises:
        ValueError: wrong options, ways that do not perceive the same, or a folder that holds another run.
    """
    first = next(iter(ways.values()))
    chosen = {name: choose(way.benchmark, way.options) for name, way in ways.items()}
    asked = {name: load(way.benchmark, None, way.options.limit) for name, way in ways.items()}
    shown, shard = watched_as(list(chosen.values())), first.options.shard
    every = list({s.id: s for samples in asked.values() for s in samples}.values())
    with _agent(shown, config) as agent:

        def kept(benchmark: Benchmark, samples: list[Sample], protocol: Protocol, folder: Path) -> Journal:
            made = stamp.stamp(benchmark, samples, protocol, config, None, agent) | {"audio": None}
            return Journal(folder, shard, stamp.start(made, shard))

        askings = [
            Asking(name, chosen[name], asked[name], kept(way.benchmark, asked[name], chosen[name], way.options.out))
            for name, way in ways.items()
        ]
        askings.append(Asking(WATCHING, shown, every, kept(first.benchmark, every, shown, watching)))
        share(Work(first.benchmark, every, None, shard), Setting(shown, agent), askings)


def listen(videos: Path | None, subtitles: Path | None, whisper: str | None, device: str) -> Ear:
    """What a run hears with: Whisper where a checkpoint is given, else subtitles, else nothing.

    Raises:
        ModelError: the checkpoint cannot be loaded.
        ValueError: there are no videos to listen to.
    """
    if whisper is not None:
        from streamvlm.benchmarks.core.whisper import Whisper

        if videos is None:
            raise ValueError("--whisper needs the folder of the videos (--videos)")
        return Transcriber(videos, Whisper(whisper, device), f"whisper: {whisper}")
    return DEAF if subtitles is None else Subtitles(subtitles)


def summary(benchmark: Benchmark, annotations: Path | None, out: Path) -> dict[str, Any]:
    """Scores and costs of a run's folder, all its shards together, as JSON."""
    found = journal.load(out)
    scores = score(benchmark, annotations, out)
    return {**scores.to_json(), "protocol": found.stamp["protocol"], "usage": usage(found)}


def load(benchmark: Benchmark, annotations: Path | None, limit: int | None = None) -> list[Sample]:
    """The samples that are asked.

    Raises:
        ValueError: there are no annotations, or they are not in the benchmark's schema.
    """
    if annotations is None and benchmark.needs_files:
        raise ValueError(f"{benchmark.name} needs its annotations (--data): {benchmark.home}")
    return select(benchmark.load(annotations or Path()), limit)


def answers(benchmark: Benchmark, samples: Sequence[Sample], source: Path | str) -> dict[str, Result]:
    """Results by id: of a run's folder, of a file of results, of a file in the benchmark's format, or a baseline's.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(source, str):
        if source not in BASELINES:
            raise ValueError(f"there is no baseline {source!r} without a model; there are {', '.join(BASELINES)}")
        return {s.id: getattr(benchmark, source)(s) for s in samples}
    if source.is_dir():
        return journal.load(source).results
    if source.suffix == ".jsonl":
        lines = source.read_text(encoding="utf-8").split("\n")
        return {r.id: r for r in (Result.parse(line) for line in lines if line)}
    return benchmark.read_answers(source, samples)


def asked_of(samples: Sequence[Sample], source: Path | str) -> list[Sample]:
    """The samples that a run was about: all, or the subset it was limited to and the results name."""
    if isinstance(source, Path) and source.is_dir():
        count = journal.load(source).stamp["samples"]
        return select(samples, count if count < len(samples) else None)
    return list(samples)


def score(benchmark: Benchmark, annotations: Path | None, source: Path | str) -> Scores:
    """Score answers or a baseline."""
    benchmark = as_run(benchmark, source)
    samples = asked_of(load(benchmark, annotations), source)
    return benchmark.score(samples, answers(benchmark, samples, source))


def judge(
    benchmark: Benchmark, annotations: Path | None, source: Path, against: Path | None, judge: Judge
) -> dict[str, Any]:
    """Have a judge score answers in free text; its replies are kept beside them.

    Raises:
        ValueError: the benchmark needs no judge, or another system's answers to compare with.
        JudgeError: the judge does not answer.
    """
    if not isinstance(benchmark, JudgedBenchmark):
        raise ValueError(f"{benchmark.name} is scored by its own rule and needs no judge")
    samples = asked_of(load(benchmark, annotations), source)
    rivals = answers(benchmark, samples, against) if against else None
    folder = source if source.is_dir() else source.parent
    kept = Kept(judge, folder / "judgements.jsonl")
    return benchmark.judge(samples, answers(benchmark, samples, source), kept, rivals).to_json()


def export(benchmark: Benchmark, annotations: Path, source: Path, out: Path) -> list[Path]:
    """Write results in the benchmark's own format."""
    return benchmark.export(annotations, answers(benchmark, load(benchmark, annotations), source), out)


def as_run(benchmark: Benchmark, source: Path | str | None) -> Benchmark:
    """The benchmark with the settings that a run's folder was made with."""
    if isinstance(source, Path) and source.is_dir():
        return benchmark.adjusted(**journal.load(source).stamp.get("settings", {}))
    return benchmark


def compare_runs(name: str, annotations: Path | None, runs: tuple[Path, Path], rule: str) -> dict[str, Any]:
    """Every total of two runs with the interval of its difference, as JSON.

    Raises:
        ValueError: there is no such rule, or the runs have nothing in common.
    """
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
    benchmark = as_run(find(name), runs[0])
    samples = load(benchmark, annotations)
    first, second = (answers(benchmark, samples, run) for run in runs)
    found = compare(benchmark, samples, first, second, rule=rule)
    return {"benchmark": name, "rule": rule, "resampled": "videos", "differences": [d.to_json() for d in found]}


def last_line(found: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(found, allow_nan=False)


@contextmanager
def _agent(protocol: Protocol, config: Config) -> Iterator[Agent | None]:
    if protocol.replay == "constant":
        yield None
        return
    asked = max(config.watch.max_question_tokens, ROOM)
    watch = replace(config.watch, max_readers=1, max_question_tokens=asked, background_tokens=BACKGROUND)
    with Agent(load_model(config.model), watch=watch, sampling=config.sampling) as agent:
        yield agent
