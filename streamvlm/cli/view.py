"""The live view on a terminal: answers scroll by, and below them what the stream is doing and a line to type on."""

from __future__ import annotations

import logging
import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.logging import RichHandler
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamvlm import Answer, FramePerceived, Stream, StreamEvent, StreamStats, WatchFired
from streamvlm.cli.keys import LineEditor
from streamvlm.cli.reports import lost, moment, outcome, printable, said, summary

REFRESH = 10  # per second
SHOWN = 6  # questions still open that are listed
RATE_OVER = 16  # steps the measured frame rate is taken over
STATE, BAR = 8, 24  # columns; the bars give way on a narrow terminal


class View:
    """A reporter that draws. Use it as a context manager; `prompt` is shown if `typing` is set."""

    def __init__(self, title: str, stream: Stream, *, typing: bool, console: Console | None = None) -> None:
        self.prompt = LineEditor()
        self._typing = typing
        self._title = title
        self._stream = stream
        self._console = console or Console(highlight=False)
        self._latest: FramePerceived | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=RATE_OVER)  # (wall time, frames so far)
        self._open: list[Answer] = []
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=REFRESH, transient=True)
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._handlers = root.handlers
        root.handlers = [RichHandler(console=self._console, show_path=False)]  # a bare line would tear the picture
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        logging.getLogger().handlers = self._handlers

    # What the session reports

    def asked(self, answer: Answer) -> None:
        """It is listed until it is answered."""
        self._open.append(answer)

    def event(self, event: StreamEvent) -> None:
        """Remembered for the next picture."""
        if isinstance(event, FramePerceived):
            self._latest = event
            self._steps.append((time.monotonic(), self._stream.stats.frames))
        elif (loss := lost(event)) is not None:
            self._console.print(Text(loss, style="yellow"))
        elif (line := said(event)) is not None:
            self._console.print(Text(line, style="bold magenta" if isinstance(event, WatchFired) else "blue"))

    def answered(self, answer: Answer) -> None:
        """It moves above the live part and stays there."""
        self._open = [other for other in self._open if other is not answer]
        style = "bold green" if answer.status == "complete" else "yellow"
        self._console.print(_exchange(answer, Text(printable(outcome(answer), keep="\n"), style=style)))

    def ended(self, stats: StreamStats, error: str | None) -> None:
        """The live part gives way to a summary."""
        self._live.stop()
        self._console.print(Text(summary(stats), style="dim"))

    def notice(self, text: str) -> None:
        """Something that concerns the person at the keyboard."""
        self._console.print(Text(text, style="red"))

    # The picture

    def render(self) -> RenderableType:
        """The live part as of now."""
        lines: list[RenderableType] = [self._questions(), self._status()]
        if self._typing:
            lines.append(self._prompt_line())
        return Group(*lines)

    def _questions(self) -> RenderableType:
        open_now = list(self._open)
        lines: list[RenderableType] = [_exchange(answer, _so_far(answer)) for answer in open_now[:SHOWN]]
        if len(open_now) > SHOWN:
            lines.append(Text(f"{'':9}  and {len(open_now) - SHOWN} more", style="dim"))
        return Group(*lines)

    def _status(self) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=STATE)
        table.add_column(width=min(BAR, self._console.width // 4))
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_row(*self._time_row())
        table.add_row(*self._cache_row())
        return table

    def _time_row(self) -> tuple[RenderableType, ...]:
        stream, latest = self._stream, self._latest
        now, duration, ended = stream.now or 0.0, stream.duration, stream.ended
        state = "ended" if ended else "watching" if latest else "waiting"
        bar = ProgressBar(total=duration or 1.0, completed=(duration or 1.0) if ended else now)
        facts = [f"{now:.1f} of {duration:.1f} s" if duration else f"{now:.1f} s"]
        if latest is not None and not ended:
            facts += [f"{self._rate():.1f} fps"] + ([] if latest.lag is None else [f"lag {latest.lag:.2f} s"])
        return Text(state, style="bold cyan"), bar, Text("  ".join([*facts, self._title]))

    def _rate(self) -> float:
        """Frames perceived per second of wall time, lately; falls when the next one is late."""
        if len(self._steps) < 2:
            return 0.0
        (begun, first), (last, frames) = self._steps[0], self._steps[-1]
        usual = (last - begun) / (len(self._steps) - 1)
        return (frames - first) / max(last - begun, time.monotonic() - begun - usual, 1e-6)

    def _cache_row(self) -> tuple[RenderableType, ...]:
        latest = self._latest
        used, capacity, window = (latest.slots_used, latest.capacity, latest.window_tokens) if latest else (0, 0, 0)
        bar = ProgressBar(total=capacity or 1, completed=used)
        return Text("cache", style="bold cyan"), bar, Text(f"{used} of {capacity} slots  window {window} tokens")

    def _prompt_line(self) -> Text:
        room = self._console.width - 4
        if not self.prompt.text:
            hint = "type a question, Ctrl-D to end" if self._stream.ended else "type a question"
            return Text(f"> {hint}", style="dim", no_wrap=True, overflow="crop")
        return Text(f"> {self.prompt.text[-room:]}▏", no_wrap=True, overflow="crop")


def _exchange(answer: Answer, reply: Text) -> Table:
    when = answer.asked_at if answer.asked_at is not None else answer.as_of
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(moment(when), style="cyan"), Text.assemble(answer.question, "  ", reply))
    return table


def _so_far(answer: Answer) -> Text:
    if answer.status == "waiting":
        return Text("…", style="dim")
    so_far = printable(answer.so_far, keep="\n")
    return Text(f"{so_far}▏", style="green")
