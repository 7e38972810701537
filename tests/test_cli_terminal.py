"""Typing questions below the live view."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamvlm.cli.keys import LineEditor

QUICK = ("--max-new-tokens", "3")


@pytest.mark.parametrize(
    ("typed", "lines", "left"),
    [
        (b"what is it?\rand", ["what is it?"], "and"),
        (b"whaa\x7ft\r", ["what"], ""),
        (b"one two  \x17three\r", ["one three"], ""),
        (b"no\x15yes\r\r  \r", ["yes"], ""),
        ("caf\u00e9 \U0001f600\r".encode(), ["caf\u00e9 \U0001f600"], ""),
        (b"\x1b[A\x1b[1;5Cup\x1bOB\t\x07\r", ["up"], ""),
        (b"a\x04b", [], "ab"),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["at once", "byte by byte"])
def test_a_line_is_edited_as_it_is_typed(typed: bytes, lines: list[str], left: str, whole: bool) -> None:
    editor = LineEditor()
    parts = [typed] if whole else [bytes([byte]) for byte in typed]
    assert [line for part in parts for line in editor.feed(part)] == lines
    assert editor.text == left
    assert not editor.closed


def test_end_of_input_closes_an_empty_line_only() -> None:
    editor = LineEditor()
    editor.feed(b"a\x04")
    assert not editor.closed
    editor.feed(b"\x7f\x04")
    assert editor.closed


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        import pty

        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "streamvlm.cli", *map(str, arguments)]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.shown = ""

    def until(self, pattern: str) -> None:
        """Read until the pattern is on the screen, after all that was looked for before."""
        deadline = time.monotonic() + 120
        while (found := re.search(pattern, self.shown, re.DOTALL)) is None:
            try:
                self.shown += os.read(self._master, 4096).decode(errors="ignore")
            except OSError:  # the program has gone
                deadline = 0.0
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"no {pattern!r} in {self.shown[:800]!r} … {self.shown[-800:]!r}")
        self.shown = self.shown[found.end() :]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self) -> int:
        self.until("slots used")
        code = self.process.wait(timeout=120)
        os.close(self._master)
        return code


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_questions_are_typed_while_it_plays(model_folder: Path, world_video: Path) -> None:
    terminal = Terminal("watch", world_video, "--model", model_folder, "--realtime", *QUICK)
    terminal.until(r"watching.*slots.*type a question")
    terminal.type("what is it?")
    terminal.until(r"> what is it\?")
    terminal.type("\r")
    terminal.until(r"\d\.\d s.*what is it\?")
    terminal.type("soon:what?\r")
    terminal.until("'soon' is not a time in seconds")
    terminal.type("\x04")
    assert terminal.finish() == 0
