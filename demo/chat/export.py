"""A transcript as a file: Markdown to read, JSON for programs, WebVTT subtitles to play beside the video."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from streamvlm.demo.chat.clock import clock, cue
from streamvlm.demo.chat.transcript import Entry

CUE_SECONDS = 6.0  # how long a subtitle stays


def as_markdown(entries: list[Entry]) -> str:
    """Everything said, in order, with stream times."""
    lines = ["# Transcript", ""]
    for entry in entries:
        when = "" if entry.at is None else f"`{clock(entry.at)}` "
        if entry.kind != "question":
            lines += [f"- {when}*{entry.kind}*: {_quiet(entry.text)}", ""]
            continue
        stamp = "" if entry.as_of is None else f" *(as of {clock(entry.as_of)}, {entry.status})*"
        lines += [f"**{when}{_quiet(entry.text)}**", "", f"{_quiet(entry.reply)}{stamp}", ""]
    return "\n".join(lines)


def as_json(entries: list[Entry]) -> str:
    """Everything known about every entry."""
    return json.dumps([entry.row() for entry in entries], ensure_ascii=False, indent=1) + "\n"


def as_webvtt(entries: list[Entry]) -> str:
    """Subtitles of the newest run: each line stands from the moment it was said."""
    last = max((entry.run for entry in entries), default=0)
    shown = [(entry.at, entry) for entry in entries if entry.run == last and entry.at is not None and _spoken(entry)]
    shown.sort(key=lambda pair: pair[0])
    cues = ["WEBVTT", ""]
    for index, (start, entry) in enumerate(shown):
        later = [at for at, _ in shown[index + 1 :] if at > start]
        stop = min([start + CUE_SECONDS, *later[:1]])
        cues += [f"{cue(start)} --> {cue(stop)}", _subtitle(entry), ""]
    return "\n".join(cues)


def _spoken(entry: Entry) -> bool:
    return entry.kind != "notice"


def _subtitle(entry: Entry) -> str:
    lines = [f"- {entry.text}", f"- {entry.reply}"] if entry.kind == "question" else [entry.text]
    # A blank line would end the cue, and "-->" begin another.
    return "\n".join(
        re.sub(r"\s+", " ", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines
    )


def _quiet(text: str) -> str:
    """Text that means nothing to Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~-])", r"\\\1", re.sub(r"\s+", " ", text).strip())


FORMS: dict[str, tuple[Callable[[list[Entry]], str], str]] = {
    "md": (as_markdown, "text/markdown"),
    "json": (as_json, "application/json"),
    "vtt": (as_webvtt, "text/vtt"),
}
