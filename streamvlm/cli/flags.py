"""A flag for every setting, made from the records that hold them, so that a setting has one name everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from streamvlm.config import ModelConfig, SamplingConfig, WatchConfig

PANELS = {"Model": ModelConfig, "Watching": WatchConfig, "Answers": SamplingConfig}
HELP = {
    "model": "tiny, a Hugging Face hub id, or a local folder",
    "device": "auto, cpu, mps, cuda or cuda:N",
    "dtype": "auto is bfloat16 on an accelerator, else float32",
    "device_map": "spread the model over devices through accelerate, e.g. auto",
    "min_pixels": "least pixels of a frame the model is shown",
    "max_pixels": "most pixels of a frame the model is shown",
    "system_prompt": "instead of the family's own",
    "fps": "frames taken per second of stream",
    "tokens_per_second": "vision tokens for a second of stream; frame rate (what rests) or picture size (what moves) "
    "give way to it",
    "max_utilisation": "part of the engine's time that watching live streams may take; the same give way to it",
    "least_fps": "below which they do not take the frame rate",
    "realtime": "play a file at its own pace",
    "policy": "what stays in the cache",
    "window_seconds": "vision that stays visible",
    "text_window": "text tokens of the stream that stay visible",
    "last_frames": "frames that stay visible under policy last_frames",
    "sink_frames": "first frames that are never evicted",
    "max_readers": "answers written at the same time",
    "max_questions": "answers not done, those written included; more are refused",
    "max_question_tokens": "room of one question in the cache",
    "max_answer_tokens": "room of one answer in the cache",
    "background_tokens": "room in the cache for watches, narration and notes",
    "narrate": "say once a second what happened",
    "trace": "file to write when each frame, token and loss happened, for streamvlm trace",
    "live": "how answers see frames that come while they are written; snapshot: not at all",
    "live_anyway": "let a model do so that was not trained for it",
    "write_gaps": "tell the model in the stream how much of it is missing",
    "notes": "write down what happens, and show a question what was written about it",
    "notes_tokens": "room in the cache for notes before one question",
    "pinned_seconds": "evicted stream that answers being written may keep alive",
    "rebase_at": "position past which the cache is shifted back",
    "prune": "what is left out of every frame, e.g. 'dtd(tau=0.04)+cap(96)'; see `streamvlm prunes`",
    "store": "folder that keeps what leaves the window, to be asked about later",
    "store_codec": "how it is written: fp16, or int8 for half the bytes",
    "store_pictures": "longer side, in pixels, of the picture kept with it; 0: none",
    "store_quota_mb": "MiB on disk, the oldest go first",
    "retrieve_tokens": "tokens brought back for one question at most",
    "retrieve_blocks": "temporal patches brought back for one question at most",
    "retrieve_method": "how they are found: by the model's keys, or embedding: by pictures and the question's text",
    "keep_window": "keep the window in view too when a question names a moment that is only stored",
    "retrieve_selection": "for all layers of the model the same, or for each its own",
    "backend": "how attention is computed",
    "decode_workers": "threads that decode a local MP4 or Matroska file",
    "queue_frames": "decoded frames that may wait for the model",
    "share_tower": "run the vision tower once for frames that wait at once, of other streams too",
    "full_capacity_tokens": "cache size under policy full",
    "temperature": "0 is greedy",
    "top_p": "1 is off",
    "top_k": "0 is off",
    "min_p": "0 is off",
    "repetition_penalty": "1 is off",
    "seed": "of the sampling",
    "max_new_tokens": "end an answer after this many",
    "min_new_tokens": "do not end an answer before this many",
    "source": "NAME=URL, a camera that visitors may watch by that name; may be repeated",
    "allow_urls": "let visitors type addresses of their own",
    "host": "address to bind; others than this machine need --auth",
    "port": "port to bind",
    "auth": "NAME:PASSWORD, ask visitors to log in; may be repeated",
    "token": "bearer token of programs; none: no API",
    "folder": "where sessions are kept",
    "visitors": "sessions awake at the same time",
    "upload_mb": "largest upload, MiB",
    "idle_minutes": "put a session away after so long without a page",
    "retention_days": "delete a session that was not used for so long",
    "stop": "a string that ends an answer; may be repeated",
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `**settings` one flag for every setting; those not given arrive as None."""
    return with_flags(PANELS)(command)


def with_flags(panels: Mapping[str, type]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same for the fields of other records: what a panel of the help is called -> record."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        unwrapped: Any = command  # typer reads what a command takes from its signature
        unwrapped.__signature__ = signature.replace(parameters=[*own, *_flags(panels)])
        return command

    return decorate


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """Only the flags somebody typed; typer makes an empty list of one that may be repeated."""
    return {name: value for name, value in settings.items() if value is not None and value != []}


def _flags(panels: Mapping[str, type]) -> Iterator[inspect.Parameter]:
    for panel, record in panels.items():
        types = get_type_hints(record)
        for setting in fields(record):
            yield _flag(setting, types[setting.name], panel)


def _flag(setting: Field[Any], kind: Any, panel: str) -> inspect.Parameter:  # noqa: ANN401
    name = f"--{setting.name.replace('_', '-')}"
    choices = f": {', '.join(get_args(kind))}" if get_origin(kind) is Literal else ""
    default = "" if setting.default in (None, ()) else f" (default {str(setting.default).lower()})"
    option = typer.Option(
        f"{name}/--no-{name[2:]}" if kind is bool else name,
        help=f"{HELP.get(setting.name, '')}{choices}{default}",
        rich_help_panel=panel,
        metavar="NAME" if choices else None,
        show_default=False,
    )
    annotation = Annotated[_plain(kind), option]  # type: ignore[valid-type]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(kind: Any) -> Any:  # noqa: ANN401
    """The type typer parses; `streamvlm.config` checks the value, so that its errors are the same from everywhere."""
    if get_origin(kind) is Literal:
        return str | None
    if get_origin(kind) is tuple:
        return list[str] | None
    return get_args(kind)[0] | None if NoneType in get_args(kind) else kind | None
