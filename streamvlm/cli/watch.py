"""`streamvlm watch`: watch a source and answer questions about it."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streamvlm.cli.asks import Ask, WatchFor, is_watch, parse_ask, parse_asks, parse_watch
from streamvlm.cli.failures import told
from streamvlm.cli.flags import given, with_settings
from streamvlm.config import Config, resolve
from streamvlm.errors import StreamVLMError

if TYPE_CHECKING:
    from streamvlm import Stream


@with_settings
def watch(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Video file, folder of pictures, address, or camera (0)."),
    ],
    ask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SECONDS:]QUESTION",
            help="Ask at that moment, else at the end of a file, now of a live stream. May be repeated.",
        ),
    ] = None,
    watch_for: Annotated[
        list[str] | None,
        typer.Option(
            "--watch",
            metavar="CONDITION[; RULE]",
            help="Tell when it comes true, e.g. 'the sign shows 7; count=1'. May be repeated. "
            "Rules: count, for-at-least, until, cooldown; how sure to be: rise, sure, on, off.",
        ),
    ] = None,
    show_tokens: Annotated[
        Path | None,
        typer.Option(metavar="OUT.mp4", help="Write the video the model gets, what pruning leaves out shaded."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Tell more; twice for even more.")
    ] = 0,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Watch SOURCE and answer questions about it.

    On a terminal, questions can be typed while it plays; Ctrl-D or Ctrl-C ends it.

    Every setting can also come from STREAMVLM_NAME or a TOML file; flags go first.
    """
    _log_to_stderr(verbose)
    with told():
        wanted = Wanted(_parsed(ask or []), _conditions(watch_for or []))
        code = _watch(source, wanted, json, resolve(given(settings), os.environ, config), show_tokens)
    raise typer.Exit(code)


class Wanted(NamedTuple):
    """What is to be found out."""

    asks: list[Ask]
    watches: list[WatchFor]


def _conditions(texts: list[str]) -> list[WatchFor]:
    try:
        return [parse_watch(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"--watch: {error}") from None


def _parsed(texts: list[str]) -> list[Ask]:
    try:
        return parse_asks(texts)
    except ValueError as error:
        raise ValueError(f"--ask: {error}") from None


def _log_to_stderr(verbose: int) -> None:
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("streamvlm").setLevel(level)


def _watch(source: str, wanted: Wanted, json: bool, config: Config, show_tokens: Path | None) -> int:
    from streamvlm import Agent, SourceOptions, load_model, open_source, parse_prune
    from streamvlm.cli.shading import Tap, shading

    if config.watch.prune:  # a wrong composition is told before a model is loaded
        parse_prune(str(config.watch.prune))
    terminal = sys.stdout.isatty() and not json
    if terminal:
        typer.echo(f"loading {config.model.model} …", err=True)
    with ExitStack() as stack:
        options = SourceOptions(workers=config.watch.decode_workers)
        opening = partial(open_source, source, fps=config.watch.fps, realtime=config.watch.realtime, options=options)
        opened = None if _is_address(source) else opening()  # a wrong path is told before a model is loaded
        if opened is not None:
            stack.callback(opened.close)
        model = load_model(config.model)
        agent = stack.enter_context(Agent(model, watch=config.watch, sampling=config.sampling))
        tap = None if show_tokens is None else Tap(opened or opening())
        stream = stack.enter_context(agent.watch(tap or opened or source))
        if tap is not None and show_tokens is not None:
            stack.enter_context(shading(stream, tap, show_tokens))
        code = _on_terminal(source, stream, wanted) if terminal else _on_pipe(stream, wanted, json)
        if stream.error is not None:
            typer.echo(f"error: {stream.error}", err=True)
        return code


def _is_address(source: str) -> bool:
    """A network stream or a camera, which plays on while a model is being loaded, so it is opened after that."""
    return "://" in source or source.isdigit() or source.startswith(("webcam:", "/dev/"))


def _on_pipe(stream: Stream, wanted: Wanted, json: bool) -> int:
    from streamvlm.cli.reports import JsonReporter, PlainReporter
    from streamvlm.cli.session import Session

    return Session(stream, JsonReporter() if json else PlainReporter()).run(*wanted)


def _on_terminal(source: str, stream: Stream, wanted: Wanted) -> int:
    from streamvlm.cli.keys import read_lines
    from streamvlm.cli.session import Session
    from streamvlm.cli.view import View

    typing = sys.stdin.isatty()
    title = Path(source).name if Path(source).exists() else source
    with View(title, stream, typing=typing) as view:
        session = Session(stream, view, linger=typing and not wanted.asks)

        def put(line: str) -> None:
            try:
                if is_watch(line):
                    session.watch(parse_watch(line))
                else:
                    session.ask(parse_ask(line))
            except (ValueError, StreamVLMError) as error:
                view.notice(str(error))

        with read_lines(view.prompt, put, session.stop) if typing else nullcontext():
            return session.run(*wanted)
