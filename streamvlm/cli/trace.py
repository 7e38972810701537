"""`streamvlm trace`: where the time of a stream went, from the file that --trace wrote."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated, Any

import typer

from streamvlm.cli.failures import failure

app = typer.Typer(help="Read what --trace wrote.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What --trace wrote.")]


@app.command()
def view(file: File, json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print the percentiles of the lag, and what was lost."""
    from streamvlm import summarise_trace

    found = summarise_trace(_lines(file))
    if json:
        typer.echo(jsons.dumps(found))
        return
    typer.echo(
        f"{found['seconds']:.1f} s, {found['frames']} frames, {found['frames_dropped']} dropped, "
        f"{found['gap_seconds']:.1f} s lost by the source, {found['events'].get('token', 0)} pieces written"
    )
    if found["per_call"] is not None:
        typer.echo(f"{found['per_call']:.2f} temporal patches to a call of the vision tower")
    typer.echo(f"{'':>8}  {'p50':>8}  {'p90':>8}  {'p99':>8}  {'max':>8}")
    for name, times in {**found["stages"], "lag": found["lag"]}.items():
        typer.echo(f"{name:>8}  {_row(times)}")


@app.command()
def convert(file: File, to: Annotated[Path, typer.Argument(metavar="OUT", help="For chrome://tracing.")]) -> None:
    """Write the same for Chrome's trace viewer or ui.perfetto.dev."""
    from streamvlm import chrome_trace

    to.write_text(jsons.dumps(chrome_trace(_lines(file))), encoding="utf-8")


def _lines(file: Path) -> list[dict[str, Any]]:
    from streamvlm import read_trace

    try:
        return read_trace(file)
    except ValueError as error:
        raise failure(error) from None


def _row(times: dict[str, float] | None) -> str:
    if times is None:
        return "not known: the frames were not captured at a moment"
    return "  ".join(f"{1e3 * seconds:>5.0f} ms" for seconds in times.values())
