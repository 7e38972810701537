"""`streamvlm bench`: run video benchmarks by their own rules, score, compare and report them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from streamvlm.cli.failures import FAILED, told
from streamvlm.cli.flags import given, with_settings
from streamvlm.config import resolve

TO_PROTOCOL = ("policy", "fps")  # settings that are part of how a benchmark is run
app = typer.Typer(help="Video benchmarks by their own rules.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A benchmark; see `streamvlm bench list`.")]
Data = Annotated[Path | None, typer.Option("--data", "--annotations", help="Its annotations, a file or a folder.")]


@app.callback()
def bench() -> None:
    """Video benchmarks by their own rules."""


@app.command("list")
def list_benchmarks() -> None:
    """What can be run, under which protocols, and where it comes from."""
    from streamvlm.benchmarks.registry import BENCHMARKS, find

    for name in BENCHMARKS:
        found = find(name)
        typer.echo(f"{name:15} {found.title}: {', '.join(found.protocols())}\n{'':15} {found.home}")


@app.command()
@with_settings
def run(  # noqa: PLR0913 -- a flag each
    name: Name,
    data: Data = None,
    videos: Annotated[Path | None, typer.Option(help="The folder of its videos.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; one that was killed goes on there.")] = None,
    protocol: Annotated[str | None, typer.Option(help="official, stream, or a baseline; by default the first.")] = None,
    context: Annotated[float | None, typer.Option(help="Seconds before a question that a clip shows.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames spread over a clip.")] = None,
    subtitles: Annotated[Path | None, typer.Option(help="A folder of .srt or .vtt files, for what is said.")] = None,
    whisper: Annotated[str | None, typer.Option(help="A Whisper checkpoint that listens to the videos.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples in all, spread over the tasks.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: this part of n; videos are dealt out in turn.")] = "1/1",
    seed_base: Annotated[int | None, typer.Option(help="streamworld: its first seed.")] = None,
    seeds: Annotated[int | None, typer.Option(help="streamworld: how many, a stream each.")] = None,
    per_cell: Annotated[int | None, typer.Option(help="streamworld: questions per kind, distance and seed.")] = None,
    longest: Annotated[float | None, typer.Option(help="streamworld: the longest distance, in seconds.")] = None,
    watches: Annotated[int | None, typer.Option(help="streamworld: conditions to be told of, per seed.")] = None,
    narrated: Annotated[bool | None, typer.Option(help="streamworld: whether it also narrates.")] = None,
    tail: Annotated[float | None, typer.Option(help="streamworld: seconds after the longest distance.")] = None,
    looks: Annotated[str | None, typer.Option(help="streamworld: all, seen or held_out (in training).")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed samples of an earlier start again.")] = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Run a benchmark, or go on with it; the last line is its scores as one JSON object.

    Started by `accelerate launch`, every process takes a shard of its own.
    """
    with _told():
        from streamvlm.benchmarks.core.commands import RunOptions, last_line, listen, run_benchmark, summary
        from streamvlm.benchmarks.core.journal import Shard
        from streamvlm.benchmarks.core.processes import own_shard
        from streamvlm.benchmarks.registry import find

        flags = given(settings)
        changes = given({"context": context, "frames": frames} | {k: flags.get(k) for k in TO_PROTOCOL})
        making = {
            "seed_base": seed_base, "seeds": seeds, "per_cell": per_cell, "longest": longest, "watches": watches,
            "tail": tail, "narrated": narrated, "looks": looks,
        }  # fmt: skip
        benchmark = find(name).adjusted(**given(making))
        protocol = protocol or next(iter(benchmark.protocols()))
        with own_shard(Shard.parse(shard)) as (part, first, device):
            options = RunOptions(
                protocol=protocol,
                annotations=data,
                videos=videos,
                out=out or Path("runs/bench") / f"{name}-{protocol}",
                limit=limit,
                shard=part,
                retry=retry,
                overrides=tuple(changes.items()),
            )
            resolved = resolve({**flags, **device}, os.environ, config)
            ear = listen(videos, subtitles, whisper, resolved.model.device)
            run_benchmark(benchmark, options, resolved, ear)
        if first:
            typer.echo(last_line(summary(benchmark, data, options.out)))


@app.command()
def score(  # noqa: PLR0913 -- a flag each
    name: Name,
    data: Data = None,
    answers: Annotated[Path | None, typer.Option(help="A run's folder, or a file of answers.")] = None,
    baseline: Annotated[str | None, typer.Option(help="constant or blind, instead of answers.")] = None,
    export: Annotated[Path | None, typer.Option(help="Also write the answers in the benchmark's own format.")] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, up to /v1; judges free text.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The judge's name there.")] = "",
    against: Annotated[Path | None, typer.Option(help="Another system's answers, where the judge compares.")] = None,
) -> None:
    """Score answers, or a baseline that needs no model; prints one JSON object."""
    with _told():
        from streamvlm.benchmarks.core import commands
        from streamvlm.benchmarks.core.judge import Server
        from streamvlm.benchmarks.registry import find

        if (answers is None) == (baseline is None):
            raise ValueError("give either --answers or --baseline")
        benchmark, source = find(name), answers or baseline or ""
        if judge_url is not None and answers is not None:
            found = commands.judge(benchmark, data, answers, against, Server(judge_url, judge_model))
            found["judge"] = judge_model
        else:
            found = commands.score(benchmark, data, source).to_json()
        if export is not None and answers is not None and data is not None:
            found["exported"] = [str(p) for p in commands.export(benchmark, data, answers, export)]
        typer.echo(commands.last_line(found))


@app.command()
def compare(
    name: Name,
    first: Annotated[Path, typer.Argument(help="A run's folder, or a file of answers.")],
    second: Annotated[Path, typer.Argument(help="Another of the same benchmark.")],
    data: Data = None,
    rule: Annotated[str, typer.Option(help="official, raw or strict.")] = "official",
) -> None:
    """Tell whether SECOND is better than FIRST: paired bootstrap over videos; prints one JSON object."""
    with _told():
        from streamvlm.benchmarks.core import commands

        typer.echo(commands.last_line(commands.compare_runs(name, data, (first, second), rule)))


@app.command()
def report(
    name: Name,
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of the same benchmark.")],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html and report.json.")] = Path("."),
) -> None:
    """Write a report of runs, with the baselines beside them."""
    with _told():
        from streamvlm.benchmarks.core.reporting import write_report

        for path in write_report(name, data, runs, out):
            typer.echo(f"wrote {path}")


@app.command()
def prepare(
    name: Name,
    data: Data = None,
    videos: Annotated[Path, typer.Option(help="The folder of its videos.")] = Path("."),
) -> None:
    """Check a download: what is missing, unreadable, mis-timed, duplicated. Exits 1 if it is not complete."""
    with _told():
        from streamvlm.benchmarks.core import commands
        from streamvlm.benchmarks.core.prepare import prepare as look
        from streamvlm.benchmarks.registry import find

        benchmark = find(name)
        found = look(benchmark, commands.load(benchmark, data), videos)
        typer.echo(commands.last_line(found.to_json(benchmark.home)))
    if not found.complete:
        raise typer.Exit(FAILED)


@contextmanager
def _told() -> Iterator[None]:
    """Progress on stderr; what goes wrong in one line, with the exit code of its kind."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("streamvlm.benchmarks").setLevel(logging.INFO)
    with told():
        yield
