"""Reading annotation files: what is missing or of the wrong kind is said with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path, kind: type) -> Any:  # noqa: ANN401
    """The content of a JSON file, a list or a dict.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path} must hold a JSON {kind.__name__}, it holds a {type(found).__name__}")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line, or of a JSON list."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            found = json.loads(text)
        else:
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON lines: {error}") from None
    if not all(isinstance(row, dict) for row in found):
        raise ValueError(f"{path} must hold one JSON object a line")
    return list(found)


def need(record: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:  # noqa: ANN401
    """A field that must be there.

    Raises:
        ValueError: it is missing or of another type.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = record.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join(k.__name__ for k in kinds)
        raise ValueError(f"{where}: {key!r} must be a {names}, got {value!r}; its keys are {sorted(record)}")
    return value


def seconds(text: str, where: str) -> float:
    """`H:MM:SS`, `MM:SS` or plain seconds; parts need not be below 60, as in some of the published files."""
    parts = text.strip().split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(n < 0 for n in numbers):
        raise ValueError(f"{where}: a time is written H:MM:SS, got {text!r}")
    total = 0.0
    for number in numbers:
        total = total * 60 + number
    return total
