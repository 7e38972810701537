"""The words of a question without what they are about: what somebody who sees nothing can go by."""

from __future__ import annotations

import re

from streamvlm.world.scene import COLORS, PLACES, SHAPES, WORDS

_PLURALS = [f"{shape}e?s" for shape in SHAPES]
_SLOTS = (
    (re.compile(r"\d+:\d\d(:\d\d)?"), "TIME"),
    (re.compile(r"\b\d+(?!\S* seconds?\b)\b"), "NUMBER"),
    (re.compile(rf"(?<=the )({'|'.join(sorted(PLACES, key=len, reverse=True))})(?=[?.;]|$| just)"), "PLACE"),
    (re.compile(rf"\b({'|'.join(COLORS)})\b"), "COLOR"),
    (re.compile(rf"\b({'|'.join([*SHAPES, *_PLURALS])})\b"), "SHAPE"),
    (re.compile(rf"(?<=(?:fore|fter|d to|hows) )({'|'.join(WORDS)})\b"), "WORD"),
)


def template(text: str) -> str:
    """A question with its colours, shapes, places, numbers and times replaced by what they are."""
    text = text.rstrip("?. ").lower().replace(" an ", " a ")
    for pattern, slot in _SLOTS:
        text = pattern.sub(slot, text)
    return text
