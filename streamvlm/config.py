"""Reads settings: flags > environment > TOML file > defaults; an error says where the bad value came from.

A setting has one name everywhere: the field `window_seconds` is the flag `--window-seconds`, the variable
`STREAMVLM_WINDOW_SECONDS`, and `window_seconds = 8` under `[watch]` in the file, whose tables are `[model]`,
`[watch]` and `[sampling]` (`streamvlm.settings` says which field is where). The file is the one named by
`--config` or `STREAMVLM_CONFIG`, else `./streamvlm.toml`, else `$XDG_CONFIG_HOME/streamvlm/config.toml`;
a named file must exist, the others may.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from streamvlm.settings import (
    Backend,
    Config,
    Dtype,
    ModelConfig,
    Policy,
    SamplingConfig,
    SettingError,
    WatchConfig,
)

__all__ = [
    "Backend",
    "Config",
    "Dtype",
    "ModelConfig",
    "Policy",
    "SamplingConfig",
    "SettingError",
    "WatchConfig",
    "resolve",
]

logger = logging.getLogger(__name__)

PREFIX = "STREAMVLM_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class _Given:
    """One value somebody set, and where."""

    value: Any
    origin: str  # "--fps", "STREAMVLM_FPS", "streamvlm.toml [watch] fps"


def resolve(
    flags: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None, file: Path | None = None
) -> Config:
    """Merge all sources; flags are by field name and a flag that is None was not given.

    Raises ValueError naming the flag, variable or key that is unknown or has a value that is not allowed.
    """
    env = env or {}
    given: dict[str, _Given] = {}
    path = _find_file(env, file)
    if path is not None:
        given |= _from_file(path)
    given |= _from_env(env)
    given |= _from_flags(flags or {})
    try:
        return Config(**{table: _build(table, given) for table in _tables()})
    except SettingError as error:
        raise ValueError(f"{given[error.name].origin}: {error}") from None


def _build(table: str, given: Mapping[str, _Given]) -> Any:
    record, types = _tables()[table]
    return record(**{name: given[name].value for name in types if name in given})


@cache
def _tables() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Table name -> (record, field name -> type)."""
    records = {"model": ModelConfig, "watch": WatchConfig, "sampling": SamplingConfig}
    return {
        table: (record, {f.name: get_type_hints(record)[f.name] for f in fields(record)})
        for table, record in records.items()
    }


def _types() -> dict[str, Any]:
    return {name: kind for _, types in _tables().values() for name, kind in types.items()}


def _find_file(env: Mapping[str, str], file: Path | None) -> Path | None:
    named = file or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise ValueError(f"{'--config' if file else CONFIG_VARIABLE}: no such file: {named}")
        return named
    home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "~")).expanduser() / ".config")
    usual = (Path("streamvlm.toml"), home / "streamvlm" / "config.toml")
    return next((path for path in usual if path.is_file()), None)


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    given = {}
    for table, values in content.items():
        _known(f"{path}: [{table}]", table, _tables())
        if not isinstance(values, dict):
            raise ValueError(f"{path}: {table} must be a table: [{table}]")
        for name, value in values.items():
            origin = f"{path} [{table}] {name}"
            kind = _known(origin, name, _tables()[table][1])
            given[name] = _Given(_checked(origin, kind, value), origin)
    return given


def _from_env(env: Mapping[str, str]) -> dict[str, _Given]:
    types = _types()
    given = {}
    for variable in sorted(v for v in env if v.startswith(PREFIX) and v != CONFIG_VARIABLE):
        name = variable.removeprefix(PREFIX).lower()
        if name not in types:
            # Other programs may use this prefix, so a misspelt name cannot be told from one of theirs.
            logger.warning("%s is not a setting of StreamVLM and is ignored", variable)
        else:
            given[name] = _Given(_parsed(variable, types[name], env[variable]), variable)
    return given


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    given = {}
    for name, value in flags.items():
        origin = f"--{name.replace('_', '-')}"
        kind = _known(origin, name, _types())
        if value is not None:
            given[name] = _Given(_checked(origin, kind, value), origin)
    return given


def _known(origin: str, name: str, allowed: Mapping[str, Any]) -> Any:
    if name not in allowed:
        raise ValueError(f"{origin}: unknown setting {name!r}; allowed: {', '.join(sorted(allowed))}")
    return allowed[name]


def _plain(kind: Any) -> tuple[type, bool]:
    """(type a value must have, whether None is allowed): `int | None` -> (int, True)."""
    if get_origin(kind) is Literal:
        return str, False
    if get_origin(kind) is tuple:
        return tuple, False
    options = get_args(kind)
    if NoneType in options:
        return next(option for option in options if option is not NoneType), True
    return kind, False


def _checked(origin: str, kind: Any, value: Any) -> Any:
    """A value from a file or a flag, which already has a type."""
    wanted, _ = _plain(kind)
    if wanted is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{origin}: must be a list of strings, got {value!r}")
        return tuple(value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:  # not isinstance: True is no int here
        raise ValueError(f"{origin}: must be of type {wanted.__name__}, got {value!r}")
    return value


def _parsed(variable: str, kind: Any, text: str) -> Any:
    """A value from the environment, where all is text; "none" unsets an optional one, commas part a list."""
    wanted, optional = _plain(kind)
    if optional and text.lower() == "none":
        return None
    if wanted is tuple:
        return tuple(part for part in text.split(",") if part)
    if wanted is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(f"{variable}: must be one of {', '.join(_TRUE + _FALSE)}, got {text!r}")
        return text.lower() in _TRUE
    try:
        return wanted(text)
    except ValueError:
        raise ValueError(f"{variable}: must be of type {wanted.__name__}, got {text!r}") from None
