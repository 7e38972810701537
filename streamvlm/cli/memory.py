"""`streamvlm memory`: look after a memory on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from streamvlm.cli.failures import failure
from streamvlm.errors import StoreError, StreamVLMError

if TYPE_CHECKING:
    from streamvlm import BlockStore


def _blocks_of(path: Path) -> Path:
    """What `watch --store` was given holds the blocks in a folder of their own, beside their index."""
    inner = path / "blocks"
    return inner if inner.is_dir() else path


app = typer.Typer(help="Look after a memory on disk.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The memory's folder, as given to --store.", callback=_blocks_of)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Start = Annotated[float, typer.Option("--from", help="Seconds of stream time.")]
Stop = Annotated[float, typer.Option("--to", help="Seconds of stream time.")]
END = float("inf")
T = TypeVar("T")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@app.callback()
def memory() -> None:
    """Look after a memory on disk."""


@app.command("ls")
def list_blocks(path: Folder, start: Start = 0.0, stop: Stop = END, as_json: AsJson = False) -> None:
    """List the blocks, one a line, in order of time."""
    with _reading(path) as store:
        for entry in store.spans(start, stop):
            if as_json:
                typer.echo(json.dumps({**asdict(entry), "kind": entry.kind.name.lower()}))
            else:
                span = f"{entry.start:10.1f} - {entry.stop:.1f} s"
                kind = entry.kind.name.lower()
                typer.echo(f"{entry.id:8d} {span:24} {entry.tokens:6d} tokens  {kind:6} {entry.stream} {entry.text}")


@app.command()
def info(path: Folder, as_json: AsJson = False) -> None:
    """What the memory holds and what it was made for."""
    with _reading(path) as store:
        stats, identity = asdict(store.stats()), json.loads(store.identity.to_json())
    if as_json:
        typer.echo(json.dumps({**stats, **identity}))
        return
    for name, value in {**identity["fingerprint"], **identity["shape"], **stats}.items():
        typer.echo(f"{name:18} {value}")


@app.command()
def verify(path: Folder, as_json: AsJson = False) -> None:
    """Read everything and check every checksum. Exits 1 if something is damaged."""
    with _reading(path) as store:
        problems, blocks = store.verify(), store.stats().blocks
    if as_json:
        typer.echo(json.dumps({"blocks": blocks, "problems": [asdict(problem) for problem in problems]}))
    else:
        for problem in problems:
            typer.echo(f"{problem.path}: {problem.what}")
        typer.echo(f"{blocks} blocks, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@app.command()
def rebuild(path: Folder, as_json: AsJson = False) -> None:
    """Make the catalogue anew from the segments alone."""
    from streamvlm import rebuild_catalogue

    result = _told(lambda: asdict(rebuild_catalogue(path)))
    text = "{blocks} blocks in {segments} segments, {damaged_bytes} damaged bytes between them".format(**result)
    typer.echo(json.dumps(result) if as_json else text)


@app.command("export")
def export_file(
    path: Folder,
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    segment: Annotated[int | None, typer.Option(help="Only this segment.")] = None,
    start: Start = 0.0,
    stop: Stop = END,
) -> None:
    """Write blocks to a safetensors file. They all have to fit in RAM: pick a segment or a span of a large memory."""
    from streamvlm import export_blocks

    with _reading(path) as store:
        entries = [e for e in store.spans(start, stop) if segment is None or e.segment == segment]
        typer.echo(f"{out}: {export_blocks(store, out, entries)} blocks")


@app.command()
def pictures(
    path: Folder,
    out: Annotated[Path, typer.Argument(help="The folder to write them to, made if there is none.")],
    start: Start = 0.0,
    stop: Stop = END,
) -> None:
    """Write the small pictures stored beside the blocks, as SECONDS.jpg, for instance those of an answer's evidence."""
    written = damaged = 0
    with _reading(path) as store:
        _told(lambda: _make_folder(out))
        for entry in store.spans(start, stop):
            try:
                picture = store.picture(entry)
            except StreamVLMError as error:
                typer.echo(f"error: {error}", err=True)
                damaged += 1
                continue
            if picture:
                _write_private(out / f"{entry.start:.2f}.jpg", picture)
                written += 1
    typer.echo(f"{out}: {written} pictures")
    if damaged:
        raise typer.Exit(1)


@app.command("import")
def import_file(
    path: Folder,
    source: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that export wrote.")],
) -> None:
    """Add the blocks of an exported file; the memory is made if there is none."""
    from streamvlm import import_blocks

    typer.echo(f"{path}: {_told(lambda: import_blocks(source, path))} blocks added")


@app.command()
def gc(
    path: Folder,
    quota: Annotated[str | None, typer.Option(help="Bytes to keep at most, as 500M or 20G.")] = None,
    before: Annotated[float | None, typer.Option(help="Drop what ended before this second of stream time.")] = None,
) -> None:
    """Drop the oldest segments beyond a size or an age, whole segments only."""
    from streamvlm import BlockStore

    limit = None if quota is None else _bytes(quota)

    def collect() -> int:
        with BlockStore.open(path) as store:
            return store.gc(limit, before)

    typer.echo(f"{path}: {_told(collect)} bytes freed")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(out, f"cannot be made: {error.strerror}") from error


def _write_private(path: Path, data: bytes) -> None:
    """A file that only its owner may read: it shows the video."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise StoreError(path, f"cannot be written: {error.strerror}") from error


@contextmanager
def _reading(path: Path) -> Iterator[BlockStore]:
    from streamvlm import BlockStore

    store = _told(lambda: BlockStore.open(path, readonly=True))
    with store:
        try:
            yield store
        except StreamVLMError as error:
            raise failure(error) from error


def _told(action: Callable[[], T]) -> T:
    """Do it; what goes wrong is one line on stderr and exit code 1."""
    try:
        return action()
    except StreamVLMError as error:
        raise failure(error) from error


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in UNITS or not number.replace(".", "", 1).isdigit():
        raise typer.BadParameter(f"{text!r} is not a size; use a number with K, M, G or T")
    return int(float(number) * UNITS[unit])
