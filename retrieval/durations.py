"""Numbers, durations and clock times in English text: regular expressions and the seconds they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: float(n) for n, word in enumerate(_ONES + _TEENS)} | {
    word: 10.0 * n for n, word in enumerate(_TENS, start=2)
}
_VAGUE = {"a": 1.0, "an": 1.0, "couple": 2.0, "few": 3.0, "hundred": 100.0}
_ORDINALS = {
    word: n
    for n, word in enumerate(
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), start=1
    )
}
_UNITS = {
    "s": 1.0,
    "sec": 1.0,
    "secs": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "min": 60.0,
    "mins": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hrs": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "day": 86400.0,
    "days": 86400.0,
}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_CARDINAL = rf"(?:(?:{_any_of(_TENS)})[- ](?:{_any_of(_ONES[1:10])})|{_any_of(_WORDS)})"
NUMBER = (
    rf"(?:\b\d+(?:\.\d+)?|\bhalf(?: an?)?\b|\b(?:a )?(?:couple(?: of)?|few)\b|\b(?:a |one )?hundred\b"
    rf"|\b{_CARDINAL}\b|\ban?\b)(?: and a half\b)?"
)
# "second" is an ordinal more often than a unit: what follows must not be the noun it counts ("a second circle").
_SECOND = (
    r"second(?=\W*$|\s*[,.;:?!)-]|\s+(?:ago|later|of|mark|in|into|on|before|after|from|to|until|and|or|did|do|does|"
    r"was|were|is|are|what|which|who|where|how|there|has|have|had|pass|passed)\b)"
)
UNIT = rf"(?:(?:{_any_of(u for u in _UNITS if u != 'second')})\b|{_SECOND})"
_PART = rf"{NUMBER}[\s-]*{UNIT}(?: and a half\b)?"
_COMPACT = r"\b(?:\d+h ?(?:\d+m ?)?(?:\d+s)?|\d+m ?\d+s)\b"
DURATION = rf"(?:{_COMPACT}|{_PART}(?:,? (?:and )?{_PART})*)"
CLOCK = r"(?<![\d:.])(?:\d{1,2}:[0-5]\d|\d{1,3}):[0-5]\d(?:\.\d+)?(?!\w|:\d)(?!\s*[ap]\.?m\b)"
ORDINAL = rf"(?:\b\d+(?:st|nd|rd|th)\b|\b(?:{_any_of(_ORDINALS)})\b)"


def number(text: str) -> float:
    """What `NUMBER` matched: "12", "twenty-five", "half an", "a couple of"."""
    text = text.lower().strip()
    extra = 0.5 if text.endswith(" and a half") else 0.0
    text = text.removesuffix(" and a half")
    if text[0].isdigit():
        return float(text) + extra
    if text.startswith("half"):
        return 0.5
    words = [w for w in re.split(r"[\s-]+", text) if w != "of"]
    if len(words) > 1 and words[0] in ("a", "one"):
        words = words[1:]
    return sum(_WORDS.get(w, _VAGUE.get(w, 0.0)) for w in words) + extra


def unit(text: str) -> float:
    """Seconds in the unit that `UNIT` matched."""
    return _UNITS[text.lower()]


def ordinal(text: str) -> int:
    """What `ORDINAL` matched: 3 for "third" and for "3rd"."""
    return _ORDINALS[text.lower()] if text.lower() in _ORDINALS else int(text[:-2])


def clock(text: str) -> float:
    """Seconds in "2:10" or "1:02:03"."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def duration(text: str) -> tuple[float, float]:
    """(seconds, seconds of the smallest unit named) of what `DURATION` matched."""
    text = text.lower()
    if re.fullmatch(_COMPACT, text):
        parts = [(float(n), {"h": 3600.0, "m": 60.0, "s": 1.0}[u]) for n, u in re.findall(r"(\d+)([hms])", text)]
    else:
        parts = []
        for count, name, half in re.findall(rf"({NUMBER})[\s-]*({UNIT})( and a half\b)?", text):
            parts.append((number(count) + (0.5 if half else 0.0), unit(name)))
    return sum(n * size for n, size in parts), min(size for _, size in parts)
