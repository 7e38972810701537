"""How commands end when something goes wrong: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from streamvlm.errors import StreamVLMError

FAILED, USAGE = 1, 2  # exit codes


@contextmanager
def told() -> Iterator[None]:
    """A caller's mistake ends the command with USAGE, a failure with FAILED."""
    try:
        yield
    except ValueError as error:
        raise failure(error, USAGE) from None
    except StreamVLMError as error:
        raise failure(error) from None


def failure(error: Exception, code: int = FAILED) -> typer.Exit:
    """Tell of it; to be raised."""
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(code)
