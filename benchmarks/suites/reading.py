"""Annotation files: read, where what is missing or of the wrong kind is said with its place; answers written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.records import LETTERS


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


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object a line, into a folder that is made; the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows of the same keys as tab-separated values with a head, into a folder that is made; the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


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


def listed(options: Sequence[str], separator: str = "\n") -> str:
    """Options with their letters."""
    return separator.join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def right_letter(record: Mapping[str, Any], options: Sequence[str], where: str) -> str:
    """The letter of the option that `gt` is the index of.

    Raises:
        ValueError: it is none.
    """
    right = need(record, "gt", int, where)
    if not 0 <= right < len(options):
        raise ValueError(f"{where}: gt is {right}, and there are {len(options)} options")
    return LETTERS[right]


def moment(record: Mapping[str, Any], key: str, where: str) -> float:
    """A time in seconds, given as a number or as `seconds` reads it."""
    value = need(record, key, (int, float, str), where)
    return seconds(value, where) if isinstance(value, str) else float(value)


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
