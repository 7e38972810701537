"""Typing a line below a live view: the terminal's own echo would write into the picture, so the view shows it."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.1
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|[^\[O])", re.DOTALL)  # arrow keys and their like


class LineEditor:
    """What has been typed since the last Enter."""

    def __init__(self) -> None:
        self.text = ""
        self.closed = False  # Ctrl-D on an empty line
        self._partial = ""  # an escape sequence that has only begun
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")

    def feed(self, typed: bytes) -> list[str]:
        """Take what the terminal sent; returns the lines it completed."""
        lines = []
        characters, escape, self._partial = _ESCAPES.sub("", self._partial + self._decoder.decode(typed)).partition(
            "\x1b"
        )
        self._partial = escape + self._partial
        for character in characters:
            if character in "\r\n":
                lines.append(self.text)
                self.text = ""
            elif character == "\x04" and not self.text:
                self.closed = True
            else:
                self._edit(character)
        return [line for line in lines if line.strip()]

    def _edit(self, character: str) -> None:
        if character in "\x7f\b":
            self.text = self.text[:-1]
        elif character == "\x15":  # Ctrl-U
            self.text = ""
        elif character == "\x17":  # Ctrl-W
            self.text = re.sub(r"\S*\s*$", "", self.text)
        elif character.isprintable():
            self.text += character


@contextmanager
def read_lines(editor: LineEditor, on_line: Callable[[str], None], on_close: Callable[[], None]) -> Iterator[None]:
    """Read the terminal at stdin on a thread of its own, key by key and without echo, until the block is left.

    `on_line` gets every line, `on_close` runs at Ctrl-D; both on that thread. Ctrl-C stays a signal.
    """
    if sys.platform == "win32":  # no termios there: questions come from --ask only
        yield
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    leaving = threading.Event()

    def read() -> None:
        while not leaving.is_set() and not editor.closed:
            if select.select([file], [], [], POLL_SECONDS)[0]:
                typed = os.read(file, 1024)
                for line in editor.feed(typed or b"\x15\x04"):  # nothing: the terminal is gone
                    on_line(line)
        if editor.closed:
            on_close()

    thread = threading.Thread(target=read, name="streamvlm-keys", daemon=True)
    try:
        tty.setcbreak(file)
        thread.start()
        yield
    finally:
        leaving.set()
        thread.join()
        termios.tcsetattr(file, termios.TCSADRAIN, before)
