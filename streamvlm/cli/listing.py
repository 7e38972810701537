"""`streamvlm models`: what --model accepts."""

from __future__ import annotations

import json
import sys

import typer
from rich.console import Console
from rich.table import Table

from streamvlm import families

WIDTH = 140  # columns in a pipe or a file
TINY = {
    "family": "qwen3_vl",
    "model": "tiny",
    "notes": "ships with StreamVLM; knows rendered scenes of shapes and numbers only",
}


def list_models(as_json: bool) -> None:
    """Print the embedded model and an example checkpoint of every family."""
    rows = [TINY, *({"family": k, "model": f.example, "notes": f.notes} for k, f in families().items())]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("model", "family", "notes"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["model"], row["family"], row["notes"])
    wide = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, width=wide)
    console.print(table)
    console.print("\nOther checkpoints of these families load the same way, by hub id or from a local folder.")
