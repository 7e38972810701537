"""Small videos with lines about them, in the forms the data sets are published in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from media import constant_rate, write_video


def small_video(folder: Path, name: str = "a.mp4", seconds: float = 12.0, rate: int = 10) -> Path:
    """Numbered pictures, ten a second."""
    return write_video(folder / name, constant_rate(seconds, rate), size=(64, 64), g="20")


def commentary(video: str, words: list[list[Any]], start: float = 0.0, stop: float = 8.0, **more: Any) -> list[Any]:
    """A line of LiveCC or Inf-Streams-Train."""
    shown = {"type": "video", "video": video, "video_start": start, "video_end": stop}
    asked = {"type": "text", "text": "Commentate.", **more.pop("query", {})}
    return [
        {"role": "user", "content": [shown, asked]},
        {"role": "assistant", "content": [{"type": "text_stream", "text_stream": words, **more}]},
    ]


def write_lines(path: Path, *lines: Any) -> Path:
    """One JSON value a line; text is written as it is."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path
