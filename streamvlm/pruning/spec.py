"""Compositions in words: `dtd(tau=0.25)+cap(96)`, as on the command line, to records and back."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields

from streamvlm.pruning.budget import TokenBudget
from streamvlm.pruning.cacher import Cacher
from streamvlm.pruning.cap import Cap
from streamvlm.pruning.carriers import Carriers
from streamvlm.pruning.dtd import Dtd
from streamvlm.pruning.dycoke import DyCoke
from streamvlm.pruning.exemplars import Exemplars
from streamvlm.pruning.gate import Gate
from streamvlm.pruning.infinipot import InfiniPot
from streamvlm.pruning.keynorm import KeyNorm
from streamvlm.pruning.livevlm import LiveVlm
from streamvlm.pruning.protocols import Method
from streamvlm.pruning.resv import ReSv
from streamvlm.pruning.roi import Roi
from streamvlm.pruning.stc import Stc
from streamvlm.pruning.tome import ToMe
from streamvlm.pruning.vidcom2 import VidCom2

Methods = Mapping[str, type[Method]]
GATES: tuple[type[Method], ...] = (Gate,)
ENCODERS: tuple[type[Method], ...] = (Cacher,)
PRUNERS: tuple[type[Method], ...] = (Dtd, Roi, Stc, VidCom2, DyCoke, Exemplars, ToMe, Cap, Carriers, TokenBudget)
_WORDS = {"true": True, "false": False, "none": None}
COMPRESSORS: tuple[type[Method], ...] = (KeyNorm, InfiniPot, LiveVlm, ReSv)


def prune_methods() -> dict[str, type[Method]]:
    """Every method by its name, in the order in which they can stand."""
    return {method.name: method for method in (*GATES, *ENCODERS, *PRUNERS, *COMPRESSORS)}


def parse_prune(spec: str, methods: Methods | None = None) -> tuple[Method, ...]:
    """The records of a composition; `methods` are what may be named, those of `prune_methods` unless told.

    Raises:
        ValueError: it is no composition, or names a method, setting or value that does not exist.
    """
    known = prune_methods() if methods is None else methods
    try:
        tree = ast.parse(spec.strip(), mode="eval").body
    except SyntaxError:
        raise _not_a_composition(spec) from None
    return tuple(_method(part, spec, known) for part in _parts(tree))


def format_prune(methods: Sequence[Method]) -> str:
    """A composition in words; only what differs from the defaults."""
    return "+".join(map(_words, methods))


def as_methods(prune: str | Sequence[Method] | None) -> tuple[Method, ...]:
    """What a setting says, in words or as records.

    Raises:
        ValueError: see `parse_prune`; or it holds something that is no method.
    """
    if prune is None or isinstance(prune, str):
        return () if prune is None or not prune.strip() else parse_prune(prune)
    for method in prune:
        if not hasattr(method, "start") or isinstance(method, type):
            raise ValueError(f"prune must be a composition or records of methods, got {method!r} among them")
    return tuple(prune)


def _parts(tree: ast.expr) -> list[ast.expr]:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        return [*_parts(tree.left), *_parts(tree.right)]
    return [tree]


def _method(part: ast.expr, spec: str, known: Methods) -> Method:
    call = part if isinstance(part, ast.Call) else None
    named = part.func if isinstance(part, ast.Call) else part
    if not isinstance(named, ast.Name):
        raise _not_a_composition(spec)
    if named.id not in known:
        raise ValueError(f"unknown pruning method {named.id!r}; methods are {', '.join(known)}")
    record = known[named.id]
    given = {} if call is None else _arguments(call, record, spec)
    lacking = [name for name, optional in _settings(record).items() if not optional and name not in given]
    if lacking:
        raise ValueError(f"{record.name} needs {', '.join(lacking)}; it has {_listed(record)}")
    for field in fields(record):  # type: ignore[arg-type]
        if isinstance(field.default, bool) and not isinstance(given.get(field.name, True), bool):
            raise ValueError(f"{record.name}: {field.name} must be true or false, got {given[field.name]!r}")
    try:
        return record(**given)
    except TypeError:
        raise ValueError(f"{record.name}: a value is of the wrong kind in {spec!r}") from None


def _arguments(call: ast.Call, record: type[Method], spec: str) -> dict[str, object]:
    names = list(_settings(record))
    if len(call.args) > len(names):
        raise ValueError(f"{record.name} has {_listed(record)}; got {len(call.args)} values")
    given = {name: _value(value, spec) for name, value in zip(names, call.args, strict=False)}
    for keyword in call.keywords:
        if keyword.arg not in names or keyword.arg in given:
            raise ValueError(f"{record.name} has {_listed(record)}, each once; got {keyword.arg!r}")
        given[keyword.arg] = _value(keyword.value, spec)
    return given


def _value(node: ast.expr, spec: str) -> object:
    """A literal, or a bare word for its own text."""
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _not_a_composition(spec) from None


def _settings(record: type[Method]) -> dict[str, bool]:
    """Setting -> whether it has a default."""
    return {f.name: f.default is not MISSING for f in fields(record)}  # type: ignore[arg-type]


def _listed(record: type[Method]) -> str:
    return ", ".join(_settings(record)) or "no settings"


def _words(method: Method) -> str:
    given = []
    for field in fields(method):  # type: ignore[arg-type]
        value = getattr(method, field.name)
        if value != field.default:
            given.append(f"{field.name}={_word(value)}")
    return f"{method.name}({', '.join(given)})" if given else method.name


def _word(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    plain = not isinstance(value, str) or (value.isidentifier() and value not in _WORDS)
    return str(value) if plain else repr(value)


def _not_a_composition(spec: str) -> ValueError:
    return ValueError(f"a composition looks like dtd(tau=0.25)+cap(96), got {spec!r}")
