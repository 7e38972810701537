"""The one place where what was said becomes HTML. Nothing a person typed or a model read is ever taken for markup.

A sign in the picture can hold any text, and a model may repeat it: replies are markdown without HTML, links and
pictures, and everything else is plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markdown_it import MarkdownIt

from streamvlm.demo.chat.clock import clock
from streamvlm.demo.chat.transcript import Entry

SHOWN_MOMENTS = 4
PAUSE = 1.5  # seconds
STATUS = {
    "waiting": "waiting …",
    "writing": "writing …",
    "complete": "",
    "truncated": "cut short",
    "cancelled": "stopped",
    "failed": "failed",
}


class Renderer:
    """Entries as HTML."""

    def __init__(self) -> None:
        self._markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
        self._markdown.enable("table").disable(["html_block", "html_inline", "link", "autolink", "image", "reference"])

    def markdown(self, text: str) -> str:
        """Markdown as safe HTML."""
        return str(self._markdown.render(text))

    def entry(self, entry: Entry) -> str:
        """One entry as an element of the transcript."""
        body = self._exchange(entry) if entry.kind == "question" else self._line(entry)
        state = escape(entry.status or "complete", quote=True)
        return f'<article class="entry {entry.kind}" id="entry-{entry.number}" data-status="{state}">{body}</article>'

    def _exchange(self, entry: Entry) -> str:
        about = f'<span class="about">about {clock(entry.about)}</span>' if entry.about is not None else ""
        asked = f'<div class="asked">{about}<p>{escape(entry.text)}</p></div>'
        reply = self.markdown(entry.reply) if entry.reply else '<p class="pending"><span></span></p>'
        return f'{asked}<div class="reply"><div class="said">{reply}</div>{self._foot(entry)}{_moments(entry)}</div>'

    def _foot(self, entry: Entry) -> str:
        stamp = "" if entry.as_of is None else f'<span class="as-of">as of {clock(entry.as_of)}</span>'
        status = STATUS.get(entry.status, entry.status)
        said = f'<span class="status">{escape(status)}</span>' if status else ""
        label, op = ("Stop", "stop") if entry.open else ("Ask again", "again")
        button = f'<button type="button" data-op="{op}" data-entry="{entry.number}">{label}</button>'
        return f"<footer>{stamp}{said}{button}</footer>"

    def _line(self, entry: Entry) -> str:
        when = "" if entry.at is None else f"<time>{clock(entry.at)}</time>"
        if entry.kind in ("note", "narration") and entry.at is not None:
            place = f'data-run="{entry.run}" data-at="{entry.at:.2f}"'
            when = f'<button type="button" class="moment bare" {place}>{when}</button>'
        picture = moment(entry.run, entry.at, "when it fired") if entry.kind == "fired" and entry.at is not None else ""
        label = {"fired": "<strong>Now:</strong> ", "narration": "", "note": "", "notice": ""}.get(entry.kind, "")
        reply = f'<div class="said">{self.markdown(entry.reply)}</div>' if entry.reply else ""
        return f"<p>{when}{label}{escape(entry.text)}</p>{reply}{picture}"


def moment(run: int, at: float, why: str) -> str:
    """A small picture that leads to its moment."""
    time = clock(at)
    return (
        f'<button type="button" class="moment" data-run="{run}" data-at="{at:.2f}" title="{escape(why)}">'
        f'<img loading="lazy" src="/chat/picture/{run}/{at:.2f}" alt="picture at {time}"><span>{time}</span></button>'
    )


def joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans in time order with those that touch, but for a pause nobody would notice, made one."""
    found: list[tuple[float, float]] = []
    for start, stop in spans:
        if found and start - found[-1][1] < PAUSE:
            start = found.pop()[0]
        found.append((start, stop))
    return found


def _moments(entry: Entry) -> str:
    """The evidence: what was brought back, best first chosen, in time order; else the newest it saw."""
    if entry.open or entry.as_of is None:
        return ""
    best = sorted(entry.moments, key=lambda m: -m[2])[:SHOWN_MOMENTS]
    recalled = [moment(entry.run, (a + b) / 2, "remembered for this answer") for a, b, _ in sorted(best)]
    if entry.about is None:
        newest = [moment(entry.run, entry.as_of, "the newest picture it saw")]
    else:
        newest = [] if recalled else [moment(entry.run, entry.about, "the moment that was asked about")]
    saw = ", ".join(f"{clock(a)}-{clock(b)}" for a, b in joined(entry.evidence)[-2:]) if entry.about is None else ""
    note = f'<span class="saw">saw {saw}</span>' if saw else ""
    return f'<div class="moments">{"".join(recalled + newest)}{note}</div>'
