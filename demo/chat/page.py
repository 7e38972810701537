"""Page: what the visitor sees, laid out with Gradio. The script in `assets/` brings it to life over one WebSocket.

Gradio draws and themes; it runs nothing on the server. Its own queue opens a connection and parses JSON for every
event, and it would send a camera's pictures as base64: see docs/chat.md.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from streamvlm.demo.chat.sources import ADDRESS, WORLD, Sources

ASSETS = Path(__file__).parent / "assets"
HEAD = (
    '<link rel="stylesheet" href="/chat/assets/chat.css">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<script type="module" src="/chat/assets/chat.js"></script>'
)
_START = "(name, address, seed) => { streamvlm.start(name, address, seed); return []; }"
_WATCH = "(text) => streamvlm.watch(text) ? '' : text"
_ASK = "(text) => streamvlm.ask(text) ? '' : text"


def theme() -> gr.themes.Base:
    """Gradio's looks without fonts from elsewhere: nothing of a visit leaves this machine."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono)


def page(sources: Sources) -> gr.Blocks:
    """The whole page."""
    with gr.Blocks(title="StreamVLM", analytics_enabled=False, fill_width=True) as blocks, gr.Row(elem_id="desk"):
        with gr.Column(scale=5, min_width=320, elem_id="see"):
            _html("stage.html", "stage-box")
            _source_bar(sources)
            _tabs()
        with gr.Column(scale=4, min_width=320, elem_id="talk"):
            _html("talk.html", "talk-box")
            _question_bar()
    return blocks


def _html(name: str, elem_id: str) -> None:
    text = (ASSETS / name).read_text(encoding="utf-8")
    gr.HTML(text, elem_id=elem_id, apply_default_css=False)


def _source_bar(sources: Sources) -> None:
    with gr.Row(elem_id="source-bar"):
        name = gr.Dropdown(
            sources.names, value=WORLD, label="Watch", container=False, scale=3, min_width=150, elem_id="source"
        )
        address = gr.Textbox(
            placeholder="rtsp://…", label="Address", container=False, scale=4, visible="hidden", elem_id="address"
        )
        seed = gr.Number(
            7, label="World", container=False, precision=0, minimum=0, scale=1, min_width=70, elem_id="seed"
        )
        start = gr.Button("Start", variant="primary", scale=1, min_width=80, elem_id="start")
        leave = gr.Button("Stop", scale=1, min_width=80, elem_id="leave")
    start.click(None, [name, address, seed], None, js=_START)
    leave.click(None, None, None, js="() => { streamvlm.leave(); return []; }")
    name.change(
        None,
        [name],
        None,
        js=f"(name) => {{ streamvlm.chosen(name, {ADDRESS!r}, {WORLD!r}); return []; }}",
    )


def _tabs() -> None:
    with gr.Tabs(elem_id="panels"):
        with gr.Tab("Tell me when", id="watches"):
            with gr.Row(elem_id="watch-bar"):
                condition = gr.Textbox(
                    placeholder="there is a red circle",
                    label="Tell me when",
                    container=False,
                    scale=6,
                    elem_id="condition",
                )
                add = gr.Button("Tell me", scale=1, min_width=90, elem_id="watch-add")
            condition.submit(None, [condition], [condition], js=_WATCH)
            add.click(None, [condition], [condition], js=_WATCH)
            _html("watches.html", "watches-box")
        with gr.Tab("Notes", id="notes"):
            _html("notes.html", "notes-box")
        with gr.Tab("Instruments", id="instruments"):
            _html("instruments.html", "instruments-box")
        with gr.Tab("Session", id="session"):
            _html("session.html", "session-box")


def _question_bar() -> None:
    with gr.Row(elem_id="question-bar"):
        question = gr.Textbox(
            placeholder="Ask about what you see …",
            label="Question",
            container=False,
            scale=6,
            min_width=160,
            lines=1,
            max_lines=4,
            autofocus=True,
            elem_id="question",
        )
        ask = gr.Button("Ask", variant="primary", scale=1, min_width=70, elem_id="ask")
    question.submit(None, [question], [question], js=_ASK)
    ask.click(None, [question], [question], js=_ASK)
