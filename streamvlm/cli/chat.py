"""`streamvlm chat`: a page on which a camera, a file or a stream is watched and talked about."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from streamvlm.cli.failures import USAGE, failure
from streamvlm.cli.flags import PANELS, given, with_flags
from streamvlm.config import Config, resolve
from streamvlm.demo.chat.settings import ChatSettings
from streamvlm.errors import StreamVLMError

SHUTDOWN_SECONDS = 5  # pages are given to hang up
OWN = tuple(field.name for field in fields(ChatSettings))


@with_flags({"Chat": ChatSettings, **PANELS})
def chat(
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Open a page to watch a camera, a file or a stream, and talk to the model while it watches.

    Every setting of model, watching and answers can also come from STREAMVLM_NAME or a TOML file; flags go first.
    STREAMVLM_AUTH and STREAMVLM_TOKEN keep secrets out of the list of processes.
    """
    try:
        flags = given(settings)
        own = {name: flags.pop(name) for name in OWN if name in flags}
        served = chat_settings(own, os.environ)
        resolved = resolve(flags, os.environ, config)
        if resolved.watch.store is not None:
            raise ValueError("store is not for the chat: every session has its own, under --folder")
        _serve(served, resolved)
    except ValueError as error:
        raise failure(error, USAGE) from None
    except (StreamVLMError, OSError) as error:
        raise failure(error) from None


def chat_settings(flags: dict[str, Any], environment: os._Environ[str] | dict[str, str]) -> ChatSettings:
    """The flags, with secrets from the environment where no flag gives them."""
    given_lists = {name: tuple(value) for name, value in flags.items() if isinstance(value, list)}
    secrets: dict[str, Any] = {}
    if environment.get("STREAMVLM_AUTH"):
        secrets["auth"] = (environment["STREAMVLM_AUTH"],)
    if environment.get("STREAMVLM_TOKEN"):
        secrets["token"] = environment["STREAMVLM_TOKEN"]
    return ChatSettings(**{**secrets, **flags, **given_lists})


def default_folder() -> Path:
    """`$XDG_STATE_HOME/streamvlm/chat`."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "streamvlm" / "chat"


def _serve(served: ChatSettings, config: Config) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import uvicorn

    from streamvlm import Agent, load_model
    from streamvlm.demo.chat.app import Chat, options_of

    options = options_of(served, default_folder())
    typer.echo(f"loading {config.model.model} …", err=True)
    with Agent(load_model(config.model), watch=config.watch, sampling=config.sampling) as agent:
        settings = uvicorn.Config(
            Chat(agent, options).app,
            host=served.host,
            port=served.port,
            log_level="warning",
            access_log=False,  # its lines would say who looked at which moment
            ws_max_size=options.limits.frame_bytes + 1024,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        typer.echo(f"StreamVLM chat: http://{served.host}:{served.port}/  (Ctrl-C ends it)")
        typer.echo(f"Sessions are kept in {options.folder} for {served.retention_days:g} days.")
        uvicorn.Server(settings).run()
