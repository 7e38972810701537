"""The command line. `streamvlm --help` and every sub-command's help answer without loading torch."""

from __future__ import annotations


def main() -> None:
    """The `streamvlm` command."""
    from streamvlm.cli.app import app

    app()
