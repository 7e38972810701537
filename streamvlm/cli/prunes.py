"""`streamvlm prunes`: what --prune may name."""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from streamvlm import prune_methods

WIDTH = 140  # columns in a pipe or a file


def list_prunes(as_json: bool) -> None:
    """Print every method with its settings, what it does and the paper it is from."""
    rows = [_row(name, method) for name, method in prune_methods().items()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("method", "does", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(f"{row['name']}({row['settings']})", row["does"], row["paper"])
    wide = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, width=wide, markup=False)
    console.print(table)
    console.print("\nThey compose with + in the order of this list: --prune 'dtd(tau=0.04)+cap(96)'.")


def _row(name: str, method: Any) -> dict[str, str]:  # noqa: ANN401
    settings = ", ".join(f.name if f.default is MISSING else f"{f.name}={_shown(f.default)}" for f in fields(method))
    first = (method.__doc__ or "").strip().split("\n\n")[0]
    return {"name": name, "settings": settings, "does": " ".join(first.split()), "paper": method.paper}


def _shown(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
