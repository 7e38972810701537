"""What every benchmark ends with: its result, and what is needed to believe it, as one JSON object."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def finish(result: dict[str, Any], *, save: bool, name: str) -> None:
    """Print `result` with machine, commit, command and date as one line of JSON; with `save`, keep it.

    It is kept as benchmarks/results/<name>.json. Raises ValueError for a name that is no plain file name,
    for a result key that is taken, and for numbers JSON lacks (a NaN is a bug in the measurement).
    """
    report = with_origin(result, name)
    line = json.dumps(report, allow_nan=False)
    if save:
        keep(report)
    print(line, flush=True)


def with_origin(result: dict[str, Any], name: str) -> dict[str, Any]:
    """`result` with machine, commit, command and date. Raises ValueError as `finish` does."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name must be letters, digits, '.', '_' or '-', got {name!r}")
    about = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": commit(),
        "machine": machine(),
    }
    taken = sorted(about.keys() & result.keys())
    if taken:
        raise ValueError(f"result may not contain the keys {taken}; allowed: any but {sorted(about)}")
    return result | about


def keep(report: dict[str, Any]) -> None:
    """Write a report that has its origin to its place, all of it or nothing."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{report['benchmark']}.json"
    written = path.with_suffix(".part")
    written.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    written.replace(path)


def load(path: Path) -> dict[str, Any]:
    """A result that `finish` has kept."""
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def machine() -> dict[str, Any]:
    """Processor, memory, accelerator and versions of this machine; None for what is not there."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu_name(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
    }


def commit() -> dict[str, Any]:
    """The commit checked out and whether the code, not what benchmarks write, differs; None outside a repository."""
    head = _git("rev-parse", "HEAD")
    written = [f":(top,exclude){path}" for path in ("benchmarks/results", "docs", "README.md")]
    changes = _git("status", "--porcelain", "--", ":/", *written)
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_name() -> str | None:
    import torch  # here, so that a benchmark's --help does not wait for it

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
