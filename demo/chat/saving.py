"""What a session writes down: one JSON file, replaced as a whole. Never pickle."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FILE = "session.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """A session at rest."""

    entries: list[dict[str, Any]] = field(default_factory=list)  # rows of the transcript
    runs: int = 0  # sources watched so far
    watches: list[dict[str, Any]] = field(default_factory=list)  # rows of the board
    source: str = ""  # key of what was watched last


def save(folder: Path, saved: Saved) -> None:
    """Write it, so that a crash leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder / f"{FILE}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **asdict(saved)}, file, ensure_ascii=False)
    fresh.replace(folder / FILE)


def load(folder: Path) -> Saved | None:
    """Read it; None when there is none, or it cannot be read, which is logged."""
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']} is not {FORMAT}")
        return Saved(list(data["entries"]), int(data["runs"]), list(data["watches"]), str(data.get("source", "")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("session %s cannot be read: %s", folder.name, error)
        return None
