"""`python -m streamvlm.cli` is `streamvlm`."""

from __future__ import annotations

from streamvlm.cli import main

main()
