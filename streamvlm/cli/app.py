"""The commands, put together. What they need is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench, memory, trace, world
from streamvlm.cli.chat import chat
from streamvlm.cli.train import train
from streamvlm.cli.watch import watch
from streamvlm.version import __version__

app = typer.Typer(
    name="streamvlm",
    help="Watch a video stream with a vision-language model in bounded memory, and answer while watching.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(watch)
app.command()(chat)
app.command()(train)
app.add_typer(world.app, name="world")
app.add_typer(trace.app, name="trace")
app.add_typer(memory.app, name="memory")
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def streamvlm(
    wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Watch a video stream with a vision-language model in bounded memory, and answer while watching."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"streamvlm {__version__}")


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False) -> None:
    """List what --model accepts."""
    from streamvlm.cli.listing import list_models

    list_models(json)


@app.command()
def prunes(json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False) -> None:
    """List the methods that --prune may name, with their settings and papers."""
    from streamvlm.cli.prunes import list_prunes

    list_prunes(json)


@app.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Look at this machine, then watch one rendered second and answer about it. Exits 1 if something is broken."""
    from streamvlm.cli.doctor import examine

    if not examine(json):
        raise typer.Exit(1)
