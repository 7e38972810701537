"""Reporters for programs and for pipes: JSON lines, and plain lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import typer

from streamvlm import (
    Answer,
    FramesDropped,
    Gap,
    LoadChanged,
    Narrated,
    NoteTaken,
    RationChanged,
    StreamEvent,
    StreamStats,
    WatchFired,
)

# What the end line promises, in this order; the record may hold more.
COUNTERS = (
    "frames",
    "frames_dropped",
    "tokens_seen",
    "tokens_window",
    "tokens_stored",
    "tokens_dropped",
    "peak_slots",
    "capacity",
)


class JsonReporter:
    """One object per line: an `answer` for every question, what the stream says by itself (`watch`, `narration`,
    `note`) or loses (`gap`, `dropped`, `load`, `ration`) as it happens, last an `end`."""

    def asked(self, answer: Answer) -> None:
        """Told when it is answered."""

    def event(self, event: StreamEvent) -> None:
        """Told at once."""
        if isinstance(event, Gap | FramesDropped | LoadChanged | Narrated | RationChanged):
            _line({"event": event.type, **asdict(event)})
        elif isinstance(event, NoteTaken):
            note = event.note
            told = {"start": note.start, "stop": note.stop, "kind": note.kind, "text": note.text}
            _line({"event": event.type, "pts": event.pts, **told})
        elif isinstance(event, WatchFired):
            names = ("pts", "condition", "probability", "since", "times")
            _line({"event": event.type, **{name: getattr(event, name) for name in names}})

    def answered(self, answer: Answer) -> None:
        """The whole answer."""
        _line(answer_record(answer))

    def ended(self, stats: StreamStats, error: str | None) -> None:
        """The counters; what gaps took was told when they happened."""
        counters = {name: getattr(stats, name) for name in COUNTERS}
        if stats.saved.patches:  # something was pruned
            counters["saved"] = asdict(stats.saved)
        if stats.rations:  # there is a budget
            counters |= {name: getattr(stats, name) for name in ("rations", "frames_spared")}
        _line({"event": "end", **counters, **({} if error is None else {"error": error})})


def answer_record(answer: Answer) -> dict[str, Any]:
    """An answer as JSON; `error` is there when it failed."""
    record = {
        "event": "answer",
        "question": answer.question,
        "asked_at": answer.asked_at,
        "as_of": answer.as_of,
        "text": answer.so_far,
        "tokens": answer.tokens,
        "ttft_s": answer.ttft_s,
        "status": answer.status,
        "evidence": [
            *({"start": m.start, "stop": m.stop, "score": m.score} for m in answer.recalled),
            *({"start": start, "stop": stop} for start, stop in answer.evidence),
        ],
    }
    if answer.status == "failed":
        record["error"] = str(answer.error)
    return record


def _line(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(record))  # echo flushes


class PlainReporter:
    """A line for every answer and every loss, and one at the end; for a pipe or a file."""

    def asked(self, answer: Answer) -> None:
        """Told when it is answered."""

    def event(self, event: StreamEvent) -> None:
        """What was lost, and what the stream says by itself, is told at once."""
        if (line := lost(event) or said(event)) is not None:
            typer.echo(line)

    def answered(self, answer: Answer) -> None:
        """Time, question, answer."""
        typer.echo(f"{moment(answer.asked_at)}  {answer.question}  ->  {printable(outcome(answer))}")

    def ended(self, stats: StreamStats, error: str | None) -> None:
        """A summary; the command tells the error."""
        typer.echo(summary(stats))


def moment(seconds: float | None) -> str:
    """`12.5 s`, as wide as any within a day."""
    return f"{'-' if seconds is None else f'{seconds:.1f}':>7} s"


def outcome(answer: Answer) -> str:
    """What an answer says, and why it says no more."""
    if answer.status == "complete":
        return answer.so_far
    why = f": {answer.error}" if answer.status == "failed" else ""
    return f"{answer.so_far} ({answer.status}{why})".strip()


def printable(text: str, keep: str = "") -> str:
    """Without anything that a terminal would obey, which a model may well write."""
    return "".join(character if character.isprintable() or character in keep else " " for character in text)


def lost(event: StreamEvent) -> str | None:
    """What an event says was lost, if it does."""
    if isinstance(event, Gap):
        return f"{moment(event.pts)}  the source lost {event.seconds:.1f} s"
    if isinstance(event, FramesDropped):
        return f"{moment(event.pts)}  {event.frames} frames were dropped to keep up"
    if isinstance(event, LoadChanged):
        return f"{moment(event.pts)}  keeping up: {event.name}"
    if isinstance(event, RationChanged):
        shown = f"{event.fps:.3g} fps, {event.width} x {event.height}, {event.tokens} tokens each"
        over = "" if event.enough else f", which is over the budget: {event.rate:.0f} a second is the least there is"
        return f"{moment(event.pts)}  within {event.budget:.0f} tokens a second: {shown}{over}"
    return None


def said(event: StreamEvent) -> str | None:
    """What the stream says by itself in an event, if it does."""
    if isinstance(event, WatchFired):
        return f"{moment(event.pts)}  {printable(event.condition)}  !  {event.probability:.0%}"
    if isinstance(event, Narrated):
        return f"{moment(event.pts)}  {printable(event.text)}"
    if isinstance(event, NoteTaken) and event.note.kind != "answer":
        return f"{moment(event.note.start)}  [{event.note.kind}] {printable(event.note.text)}"
    return None


def summary(stats: StreamStats) -> str:
    """One line of counters."""
    saved = stats.saved
    pruned = f", {100 * saved.kept:.0f} % of {saved.tokens} vision tokens kept" if saved.patches else ""
    spared = f", {stats.frames_spared} left out for the budget" if stats.rations else ""
    return (
        f"{stats.frames} frames, {stats.frames_dropped} dropped{spared}; {stats.tokens_seen} tokens seen, "
        f"{stats.tokens_window} in the window; at most {stats.peak_slots} of {stats.capacity} slots used{pruned}"
    )
