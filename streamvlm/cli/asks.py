"""Questions and watches as people type them: `5.0:what color is the circle?`, `the sign shows 7; count=1`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamvlm import Rule

# A word directly before a colon directly before more text was meant as a time, right or wrong: "5s:what is it?".
_TIMED = re.compile(r"\s*(?P<time>\S+?)\s*:(?P<question>.*)", re.DOTALL)

# What may stand after a condition, and what each is: fields of Rule.
RULES = {
    "count": "N",
    "for_at_least": "SECONDS",
    "until": "SECONDS",
    "cooldown": "SECONDS",
    "rise": "LOGODDS",
    "sure": "PROBABILITY",
    "on": "PROBABILITY",
    "off": "PROBABILITY",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A question and the stream time it is asked at; None: at the end of a file, now for a live stream."""

    question: str
    at: float | None = None  # seconds


def parse_ask(text: str) -> Ask:
    """Read `SECONDS:QUESTION` or `QUESTION`.

    Raises:
        ValueError: there is no question, or what stands before the colon is no moment of a stream.
    """
    found = _TIMED.fullmatch(text)
    at, question = (None, text) if found is None else _timed(found["time"], found["question"])
    if not question.strip():
        raise ValueError(f"{text!r} has no question; write SECONDS:QUESTION, e.g. '5.0:what is it?'")
    if question.lstrip()[:1].isdigit() and _TIMED.fullmatch(question) and at is not None:
        raise ValueError(f"{text!r}: the time is in seconds, e.g. '90:what is it?'")
    if at is not None and not (math.isfinite(at) and at >= 0):
        raise ValueError(f"{text!r}: the time must be 0 or more seconds, e.g. '5.0:what is it?'")
    return Ask(question.strip(), at)


def _timed(time: str, question: str) -> tuple[float | None, str]:
    try:
        return float(time), question
    except ValueError:
        if question[:1].isspace():  # "note: what is it?" is a question with a colon in it
            return None, f"{time}:{question}"
        raise ValueError(f"{time!r} is not a time in seconds; write SECONDS:QUESTION") from None


def parse_asks(texts: Iterable[str]) -> list[Ask]:
    """All questions in the order they are due, those without a time last."""
    return sorted(map(parse_ask, texts), key=lambda ask: math.inf if ask.at is None else ask.at)


@dataclass(frozen=True, slots=True)
class WatchFor:
    """A condition to be told about, and the rule to go by."""

    condition: str
    rule: dict[str, Any] = field(default_factory=dict)  # fields of Rule that were given


def is_watch(text: str) -> bool:
    """Whether what was typed asks to be told when something happens."""
    return re.match(r"\s*(please\s+)?(tell|let|notify|alert)\s+(me|us)\b.*\b(when|if|once)\b", text, re.I) is not None


def parse_watch(text: str) -> WatchFor:
    """Read `CONDITION` or `CONDITION; count=1; for-at-least=2; until=60; cooldown=10`.

    Raises:
        ValueError: there is no condition, or what follows it is no rule (fields of `streamvlm.Rule`) or not allowed.
    """
    condition, *parts = text.split(";")
    if not condition.strip():
        raise ValueError(f"{text!r} has no condition; write e.g. 'the sign shows 7; count=1'")
    rule: dict[str, Any] = dict(map(_rule, parts))
    Rule(**rule)  # refuses what is not allowed before anything is watched
    return WatchFor(condition.strip(), rule)


def _rule(part: str) -> tuple[str, float | int]:
    name, _, value = part.partition("=")
    name = name.strip().replace("-", "_")
    try:
        if name in RULES:
            return name, int(value) if name == "count" else float(value)
    except ValueError:
        pass
    allowed = ", ".join(f"{rule.replace('_', '-')}={unit}" for rule, unit in RULES.items())
    raise ValueError(f"{part.strip()!r} is none of {allowed}")
