"""What was said, as HTML and as files: nothing a person typed or a model read is taken for markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from streamvlm.demo.chat.clock import clock, cue
from streamvlm.demo.chat.export import as_json, as_markdown, as_webvtt
from streamvlm.demo.chat.render import Renderer, joined
from streamvlm.demo.chat.transcript import Entry, Transcript, entry_of

EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "<https://evil.example>",
    "[a]: https://evil.example\n\n[a]",
    "```html\n<iframe src=//evil.example></iframe>\n```",
    "&lt;b&gt; <b>bold</b>",
    "</article><form action=//evil.example>",
]
ALLOWED = {
    "article", "div", "p", "span", "footer", "button", "img", "time", "strong", "em", "code", "pre", "ul", "ol", "li",
    "blockquote", "br", "hr", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


class Tags(HTMLParser):
    """The tags and attributes of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def entry(text: str, reply: str = "", kind: str = "question", **more: object) -> Entry:
    row = {"number": 1, "kind": kind, "run": 1, "wall": 0.0, "at": 3.0, "text": text, "reply": reply}
    return entry_of({**row, "status": "complete", "as_of": 3.5, "evidence": [], "moments": [], **more})


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("kind", ["question", "notice", "fired", "narration"])
def test_markup_in_a_question_or_in_what_a_model_read_is_only_text(evil: str, kind: str) -> None:
    found = tags(Renderer().entry(entry(evil, reply=evil, kind=kind)))
    assert {tag for tag, _ in found} <= ALLOWED
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "style", "srcdoc")]
        if tag == "img":
            assert (attributes["src"] or "").startswith("/chat/picture/1/")


def test_a_reply_is_markdown() -> None:
    html = Renderer().entry(entry("?", reply="**two** things:\n\n- a `cross`\n- a circle"))
    assert "<strong>two</strong>" in html
    assert html.count("<li>") == 2
    assert "<code>cross</code>" in html


def test_an_answer_says_its_moment_and_shows_it() -> None:
    html = Renderer().entry(entry("?", reply="yes", evidence=[(0.0, 0.5), (2.0, 3.5)], moments=[(60.0, 61.0, 0.9)]))
    assert "as of 00:03" in html
    assert 'data-at="3.50"' in html
    assert 'data-at="60.50"' in html
    assert "saw 00:00-00:00, 00:02-00:03" in html


def test_what_was_asked_about_a_moment_shows_that_moment() -> None:
    html = Renderer().entry(entry("?", reply="yes", about=7.0))
    assert 'data-at="7.00"' in html and 'data-at="3.50"' not in html
    html = Renderer().entry(entry("?", reply="yes", about=7.0, moments=[(6.0, 7.0, 0.9)]))
    assert 'data-at="6.50"' in html and 'data-at="7.00"' not in html


def test_spans_that_touch_are_told_as_one() -> None:
    assert joined([(0.0, 0.5), (4.0, 4.5), (4.5, 5.0), (5.5, 6.0)]) == [(0.0, 0.5), (4.0, 6.0)]
    assert joined([]) == []


def test_times_are_readable() -> None:
    assert (clock(83.9), clock(3723), clock(-1)) == ("01:23", "1:02:03", "00:00")
    assert cue(3723.4) == "01:02:03.400"


def test_subtitles_hold_in_spite_of_what_was_said() -> None:
    first = entry("is it --> there?\n\nWEBVTT", reply="<b>yes</b>", at=1.0)
    second = entry("later", kind="fired", at=3.0)
    lines = as_webvtt([first, second]).splitlines()
    assert lines[:2] == ["WEBVTT", ""]
    assert [line for line in lines if "-->" in line] == [
        "00:00:01.000 --> 00:00:03.000",
        "00:00:03.000 --> 00:00:09.000",
    ]
    assert "- &lt;b&gt;yes&lt;/b&gt;" in lines
    assert [line for line in lines if "<" in line] == []


def test_markdown_and_json_hold_everything() -> None:
    entries = [entry("a *b* <c>", reply="d"), entry("it rains", kind="fired", at=7.0)]
    markdown = as_markdown(entries)
    assert "a \\*b\\* \\<c\\>" in markdown
    assert "`00:07` *fired*: it rains" in markdown
    rows = json.loads(as_json(entries))
    assert [row["text"] for row in rows] == ["a *b* <c>", "it rains"]
    assert entry_of(rows[0]).row() == entries[0].row()


def test_a_page_is_sent_only_what_it_does_not_have() -> None:
    transcript = Transcript()
    transcript.add("notice", "one", run=0)
    seen = max(e.version for e in transcript.since(0))
    assert transcript.since(seen) == []
    two = transcript.add("notice", "two", run=0)
    assert transcript.since(seen) == [two]


def test_an_answer_that_was_cut_off_by_a_restart_is_not_waited_for() -> None:
    assert not entry("?", status="writing").open
