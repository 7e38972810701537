"""Time expressions in questions: "at 2:10", "in the first minute", "an hour ago", "between 1:00 and 2:00".

Times are stream time: seconds since the stream began, seen from `now`. What one expression means:

| words | span |
|---|---|
| at 2:10, at 130 s, 2:10 into the video | ±2 s; ±10 s when only minutes are named, ±60 s for hours; "around": ±10 s |
| at minute 5, in the third minute | that minute, hour or second |
| an hour ago, 30 s before the end | ±10 % of the distance, at least ±2 s |
| less than / within / more than an hour ago | from then to now; up to then |
| between A and B, from A to B, 1:00-2:00 | A to B |
| before, until A / after, since, from A on | up to A / from A to now; together, what lies between |
| just before, right after A | the 10 s before, after |
| in the first minute, the last ten minutes | from the start, up to now |
| at the beginning, at first, initially / at the end | a tenth of the stream, from 10 to 60 s |
| halfway through | from 40 % to 60 % of the stream |
| just now, a moment ago | the last 10 s |
| so far, until now | all of it |

Times of day ("at 3 pm", "yesterday"), and ends of anything but the video ("at the end of the street"), mean nothing
here and give no span. A span that lies wholly outside [0, now] is kept: it says that there is nothing to find.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from streamvlm.retrieval.durations import CLOCK, DURATION, NUMBER, ORDINAL, UNIT, clock, duration, ordinal, unit

_NEAR = 10.0  # seconds: "just before", "just now", "around"
_EXACT = 2.0
_TOLERANCE = {1.0: _EXACT, 60.0: 10.0, 3600.0: 60.0, 86400.0: 600.0}  # by the smallest unit named


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A stretch of stream time that a question names."""

    start: float  # seconds
    stop: float
    words: str  # the part of the question that names it
    question: str

    @property
    def span(self) -> tuple[float, float]:
        """(start, stop) in seconds."""
        return self.start, self.stop


@dataclass(frozen=True, slots=True)
class _Point:
    """A moment and how loosely it was named."""

    time: float
    tolerance: float


Span = tuple[float, float]
Meaning = Callable[[re.Match[str], float], Span]

_VIDEO = r"(?:of (?:the|this|your) (?:video|stream|clip|recording|footage|film|movie|watch|session)\b)"
_WHOLE = rf"(?: {_VIDEO}|(?! of\b))"
_START = rf"(?:the (?:very )?(?:start|beginning|outset)\b{_WHOLE})"
_END = rf"(?:the (?:very )?end\b{_WHOLE}|now\b)"
_AGO = rf"(?:{DURATION} ago\b)"
_OFFSET = rf"(?:{DURATION} (?:before|after|past|from) (?:{CLOCK}|{_START}|{_END}))"
_NTH = r"(?:(?:minute|second|hour) (?:number )?\d+\b)"
_COUNTED = rf"{NUMBER}[\s-]*{UNIT}"
_MOMENT = rf"(?:{_OFFSET}|{_AGO}|{CLOCK}|{_NTH}|{DURATION}(?: mark\b)?)"
_POINT = rf"(?:{_MOMENT}|{_START}|{_END})"
_ABOUT = r"(?:about|around|roughly|approximately|exactly|near|time|the|t ?=|[ ~])*"
_JUST = r"(?P<near>just|right|shortly|immediately|directly|soon)"
_BEFORE = r"(?:before|prior to|until|till|up to|earlier than)"
_TO = r"-|to\b|and\b|until\b|till\b|through\b|up to\b"
_SIDE = r"(?:first|opening|initial|last|past|previous|final|most recent)"
_PLAIN = {ord(c): "-" for c in "\u2010\u2011\u2012\u2013\u2014"} | {ord(c): " " for c in "\u00a0\u202f\t\n\r"}
_NOT_RATE = r"(?! ?(?:intervals?|per|each|apart|long|old|delay)\b)"


def _point(text: str, now: float) -> _Point:
    """The moment that `_POINT` matched."""
    if found := re.fullmatch(rf"({DURATION}) (before|after|past|from) (.+)", text, re.I):
        distance, _ = duration(found[1])
        anchor = _point(found[3], now).time
        back = found[2].lower() == "before" or f"{found[2]} {found[3]}".lower().startswith("from the end")
        time = anchor - distance if back else anchor + distance
        return _Point(time, max(_EXACT, 0.1 * distance))
    if re.fullmatch(_START, text, re.I):
        return _Point(0.0, _EXACT)
    if re.fullmatch(_END, text, re.I):
        return _Point(now, _EXACT)
    if found := re.fullmatch(rf"({DURATION}) ago", text, re.I):
        distance, _ = duration(found[1])
        return _Point(now - distance, max(_EXACT, 0.1 * distance))
    if found := re.fullmatch(r"(minute|second|hour) (?:number )?(\d+)", text, re.I):
        return _Point(unit(found[1]) * float(found[2]), _TOLERANCE[unit(found[1])])
    if re.fullmatch(CLOCK, text, re.I):
        return _Point(clock(text), _EXACT)
    seconds, precision = duration(text.removesuffix(" mark"))
    return _Point(seconds, _TOLERANCE[precision])


def _around(match: re.Match[str], now: float) -> Span:
    text = match["a"]
    point = _point(text, now)
    if re.match(r"minute|hour", text, re.I):  # "at minute 5" is all of it
        return point.time, point.time + unit(text.split()[0])
    lead = match[0][: match.start("a") - match.start()]
    loose = re.search(r"\b(?:about|around|roughly|approximately|near)\b|~", lead, re.I)
    reach = max(point.tolerance, _NEAR) if loose else point.tolerance
    return point.time - reach, point.time + reach


def _range(match: re.Match[str], now: float) -> Span:
    first, last = match["a"], match["b"]
    if re.fullmatch(NUMBER, first, re.I):  # "between 10 and 20 seconds", "between two and three hours ago"
        first += re.sub(rf"^{NUMBER}", "", last, flags=re.I)
    a, b = _point(first, now).time, _point(last, now).time
    return min(a, b), max(a, b)


def _bound(match: re.Match[str], now: float) -> Span:
    time = _point(match["a"], now).time
    before = re.fullmatch(rf"{_BEFORE}|by", match["side"], re.I)
    if match.groupdict().get("near"):
        return (time - _NEAR, time) if before else (time, time + _NEAR)
    return (0.0, time) if before else (time, max(now, time))


def _window(match: re.Match[str], now: float) -> Span:
    text = match["a"]
    seconds = duration(text)[0] if re.match(rf"(?:{NUMBER}|\d)", text, re.I) else duration(f"1 {text}")[0]
    if re.match(r"first|opening|initial", match["side"], re.I):
        return 0.0, seconds
    return now - seconds, now


def _ago(match: re.Match[str], now: float) -> Span:
    time = _point(match["a"], now).time
    if re.match(r"more|over", match["how"], re.I):
        return 0.0, time
    return time, now


def _nth(match: re.Match[str], now: float) -> Span:
    size = unit(match["unit"])
    return (ordinal(match["n"]) - 1) * size, ordinal(match["n"]) * size


def _from_start(match: re.Match[str], now: float) -> Span:
    return 0.0, min(60.0, max(_NEAR, now / 10))


def _to_end(match: re.Match[str], now: float) -> Span:
    return now - min(60.0, max(_NEAR, now / 10)), now


_RULES: tuple[tuple[str, Meaning], ...] = (  # in this order: words belong to the first rule that claims them
    (rf"\bbetween (?:the )?(?P<a>{_POINT}) and (?:the )?(?P<b>{_POINT})", _range),
    (rf"\bfrom (?:the )?(?P<a>{_POINT}) ?(?:{_TO}) ?(?:the )?(?P<b>{_POINT})", _range),
    (rf"\b(?:between|from) (?P<a>{NUMBER}) ?(?:{_TO}) ?(?P<b>{_COUNTED}(?: ago\b)?)", _range),
    (rf"(?P<a>{CLOCK}) ?(?:{_TO}) ?(?P<b>{CLOCK})", _range),
    (rf"\b(?P<side>from) (?P<a>{_MOMENT}) on(?:wards?)?\b", _bound),
    (rf"\b(?P<how>less than|within|under|more than|over) (?P<a>{_AGO})", _ago),
    (rf"\b(?:in|during|of|at) the (?P<n>{ORDINAL}) (?P<unit>{UNIT})(?! ?hand)", _nth),
    (rf"\bthe (?:very )?(?P<side>{_SIDE}) (?P<a>{DURATION}|{UNIT}(?: and a half\b)?)(?! ?hand)", _window),
    (rf"\b(?P<side>{_SIDE}) (?P<a>{DURATION})", _window),
    (rf"\b(?:since {_START}|(?:up )?until now\b|up to now\b)", lambda match, now: (0.0, now)),
    (r"\bso far\b(?! (?:away|from|apart|off|left|right|to|down|up|behind)\b)", lambda match, now: (0.0, now)),
    (rf"\b(?:at )?(?P<a>{_OFFSET})", _around),
    (rf"(?:\b{_JUST} )?\b(?P<side>{_BEFORE}) {_ABOUT}(?P<a>{_MOMENT}){_NOT_RATE}", _bound),
    (rf"(?:\b{_JUST} )?\b(?P<side>after|since|later than) {_ABOUT}(?P<a>{_MOMENT}){_NOT_RATE}", _bound),
    (rf"\b(?P<side>by) (?P<a>{CLOCK})", _bound),
    (rf"\b(?:(?:about|around|roughly|at|some) )*(?P<a>{_AGO})", _around),
    (rf"(?:\bat|@) ?{_ABOUT}(?P<a>{_MOMENT}){_NOT_RATE}", _around),
    (rf"\b(?:about|around|near|roughly|approximately) (?P<a>{CLOCK})", _around),
    (rf"\bthe (?P<a>{CLOCK})(?= (?:mark|point|moment|frame)\b|\W*$|[,.;?!])", _around),  # not "the 10:15 train"
    (rf"\b(?P<a>{CLOCK}|{DURATION}) (?:into\b|in(?=\W*$|[,.;?!]))(?: (?:the|this) \w+)?", _around),
    (rf"\bthe (?P<a>{DURATION} mark\b)", _around),
    (rf"\b(?:at|in|near) {_START}", _from_start),
    (r"\b(?:initially\b|at first(?=\s*[,.;?!]|\s*$))", _from_start),
    (rf"\b(?:at|near|towards?) the (?:very )?end\b{_WHOLE}", _to_end),
    (rf"\bhalfway through\b(?: the (?:video|stream))?|\bin the middle {_VIDEO}", lambda m, now: (0.4 * now, 0.6 * now)),
    (r"\b(?:just now|(?:just )?(?:a moment|moments) ago)\b", lambda match, now: (now - _NEAR, now)),
)


@cache
def _compiled() -> tuple[tuple[re.Pattern[str], Meaning], ...]:
    return tuple((re.compile(pattern, re.I | re.A), meaning) for pattern, meaning in _RULES)


def _found(text: str, now: float) -> list[tuple[re.Match[str], Span]]:
    claimed = [False] * len(text)
    found = []
    for pattern, meaning in _compiled():
        for match in pattern.finditer(text):
            if not any(claimed[match.start() : match.end()]):
                claimed[match.start() : match.end()] = [True] * (match.end() - match.start())
                found.append((match, meaning(match, now)))
    return sorted(found, key=lambda pair: pair[0].start())


def _clip(span: Span, now: float) -> Span:
    """Cut what reaches past either end of the stream; leave alone what lies wholly outside it."""
    start, stop = span[0], max(span[1], span[0] + _EXACT)
    if start < 0 < stop:
        start = 0.0
    if start < now < stop:
        stop = now
    return start, max(stop, start + _EXACT)


def _is_bound(match: re.Match[str], side: str) -> bool:
    groups = match.groupdict()
    if groups.get("side") is None or groups.get("near") is not None or re.fullmatch(_SIDE, groups["side"], re.I):
        return False
    before = re.fullmatch(rf"{_BEFORE}|by", groups["side"], re.I) is not None
    return before == (side == "before")


def time_spans(question: str, now: float) -> tuple[TimeSpan, ...]:
    """The stretches of stream time [start, stop) that `question`, asked at `now` seconds, names; () when it names none.

    Several are alternatives, but one "before" and one "after" together mean what lies between.

    Raises:
        ValueError: `now` is negative or not finite.
    """
    if not 0 <= now < math.inf:
        raise ValueError(f"now is {now}, must be 0 or more seconds")
    text = question.translate(_PLAIN)  # one character for one: the words are cut from the question itself
    found = _found(text, now)
    after = [(m, s) for m, s in found if _is_bound(m, "after")]
    before = [(m, s) for m, s in found if _is_bound(m, "before")]
    spans = [(m.start(), m.end(), s) for m, s in found]
    if len(after) == len(before) == 1 and len(found) == 2 and after[0][1][0] < before[0][1][1]:
        ends = [m.span() for m, _ in found]
        spans = [(min(ends)[0], max(ends)[1], (after[0][1][0], before[0][1][1]))]
    return tuple(TimeSpan(*_clip(span, now), question[a:b], question) for a, b, span in spans)


def named_moment(question: str, now: float) -> float | None:
    """The one point in time that `question`, asked at `now` seconds, is about ("at 2:10", "an hour ago").

    None where it names none, several, or a stretch.
    """
    found = _found(question.translate(_PLAIN), now)
    if len(found) != 1 or "a" not in found[0][0].groupdict() or "side" in found[0][0].groupdict():
        return None
    match = found[0][0]
    if {"b", "how", "n"} & match.groupdict().keys() or re.match(r"minute|hour", match["a"], re.I):
        return None
    return min(max(0.0, _point(match["a"], now).time), now)
