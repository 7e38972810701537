"""Times as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """`01:23`, or `1:02:03` from an hour on."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def cue(seconds: float) -> str:
    """`00:01:23.400`, as WebVTT wants it."""
    millis = round(max(0.0, seconds) * 1000)
    return f"{millis // 3600000:02}:{millis // 60000 % 60:02}:{millis // 1000 % 60:02}.{millis % 1000:03}"
