"""Commands: what a page asks for, checked, and carried out on its session."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from streamvlm.demo.chat.feeds import FileFeed
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sources import Choice

Arguments = Mapping[str, Any]


def carry_out(session: Session, arguments: Arguments) -> None:
    """Do what `op` says.

    Raises:
        Refused: there is no such command, an argument is wrong, or the session refuses.
    """
    command = COMMANDS.get(str(arguments.get("op")))
    if command is None:
        raise Refused("There is no such command.")
    session.touch()
    command(session, arguments)


def _start(session: Session, arguments: Arguments) -> None:
    name = _text(arguments, "name", 200)
    seed = int(_number(arguments, "seed", 7.0))
    session.start(Choice(name, session.upload, _text(arguments, "address", 2000), seed))


def _ask(session: Session, arguments: Arguments) -> None:
    about = arguments.get("about")
    session.ask(_text(arguments, "text", 100_000), None if about is None else _number(arguments, "about", 0.0))


def _follow(session: Session, arguments: Arguments) -> None:
    run = session.run
    if run is not None and isinstance(run.feed, FileFeed):
        playing = arguments.get("playing") is True
        run.feed.follow(_number(arguments, "at", 0.0), playing, _number(arguments, "rate", 1.0))


def _text(arguments: Arguments, name: str, most: int) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refused(f"{name} must be text of at most {most} characters.")
    return value


def _number(arguments: Arguments, name: str, default: float) -> float:
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"{name} must be a number.")
    return float(value)


def _entry(arguments: Arguments) -> int:
    return int(_number(arguments, "entry", 0.0))


COMMANDS: dict[str, Callable[[Session, Arguments], None]] = {
    "start": _start,
    "leave": lambda session, _: session.stop(),
    "ask": _ask,
    "stop": lambda session, arguments: session.cancel(_entry(arguments)),
    "stop_all": lambda session, _: session.cancel_all(),
    "again": lambda session, arguments: session.again(_entry(arguments)),
    "playhead": _follow,
    "watch": lambda session, arguments: session.board.add(_text(arguments, "text", 500)),
    "watch_pause": lambda session, arguments: session.board.pause(_entry(arguments), arguments.get("on") is True),
    "watch_remove": lambda session, arguments: session.board.remove(_entry(arguments)),
    "narrate": lambda session, arguments: session.narrate(arguments.get("on") is True),
}
