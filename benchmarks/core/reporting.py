"""Reports as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from streamvlm.benchmarks.core import report as reports
from streamvlm.benchmarks.core.html import page
from streamvlm.benchmarks.registry import find


def write_report(name: str, annotations: Path | None, runs: Sequence[Path], out: Path) -> list[Path]:
    """Write `report.md`, `report.html` and `report.json` into `out`.

    Raises:
        ValueError: the runs are not of one benchmark and the same samples.
    """
    found = reports.gather(find(name), annotations, runs)
    text = reports.markdown(found)
    files = {
        "report.md": text,
        "report.html": page(found.benchmark.title, text, reports.bars(found)),
        "report.json": json.dumps(reports.as_json(found), indent=2) + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (out / file).write_text(content, encoding="utf-8")
    return [out / file for file in files]
