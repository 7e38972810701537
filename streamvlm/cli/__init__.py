"""The command line. `streamvlm --help` and every sub-command's help answer without loading torch."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The `streamvlm` command."""
    from streamvlm.cli.app import app

    if not sys.stderr.isatty():  # Hugging Face's code reads this when it is first imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app()
