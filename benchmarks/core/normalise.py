"""A model's words reduced to the answer they give, or to nothing when they give none or several."""

from __future__ import annotations

import re
from collections.abc import Sequence

NO_ANSWER = "-"  # exported where there is none: no letter, no digit, neither Yes nor No
_LEADING = re.compile(r"\(?([A-J])(?:[).:,]|\s*$)")  # "B", "B.", "(B) the red one"; not the article of "A man walks"
_NAMED = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*\(?([A-J])\b(?!\s+[a-z])", re.IGNORECASE)
_ALONE = re.compile(r"(?<![A-Za-z'])([A-J])(?![A-Za-z'])")
_PUNCTUATION = " \t\r\n.,;:!?\"'()[]*"
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def letter(text: str, options: Sequence[str]) -> str:
    """The one option that `text` chooses, as a capital letter; "" when that is none or not clear."""
    text = text.strip()
    allowed = [chr(ord("A") + i) for i in range(len(options))]
    for pattern in (_LEADING.match, _NAMED.search):
        found: re.Match[str] | None = pattern(text)
        if found is not None and found[1].upper() in allowed:
            chosen: str = found[1].upper()
            rest = set(_ALONE.findall(text[found.end() :])) & set(allowed)
            return "" if rest - {"A", chosen} else chosen
    named: set[str] = {m for m in _ALONE.findall(text) if m in allowed}
    if len(named) == 1 and not _is_article(text, named):
        return named.pop()
    if text.lower() in (a.lower() for a in allowed):
        return text.upper()
    same = [a for a, option in zip(allowed, options, strict=True) if plain(option) == plain(text)]
    return same[0] if len(same) == 1 else ""


def integer(text: str) -> str:
    """The one number that `text` names, in digits; "" when that is none or several."""
    found = {str(int(digits)) for digits in re.findall(r"\d+", text)}
    if not found:
        found = {str(_WORDS.index(word)) for word in re.findall(r"[a-z]+", text.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else ""


def yes_no(text: str) -> str:
    """`Yes` or `No`, as the word that `text` begins with, or the only one of the two in it; "" otherwise."""
    words = re.findall(r"[a-z]+", text.lower())
    said = ["Yes" if w in ("yes", "y") else "No" for w in words if w in ("yes", "no", "y", "n")]
    if words and words[0] in ("yes", "no", "y", "n"):
        return said[0]
    return said[0] if len(set(said)) == 1 else ""


def plain(text: str) -> str:
    """A text without case and the punctuation around it, and without the letter of an option."""
    return re.sub(r"^[A-J]\.\s*", "", text.strip()).strip(_PUNCTUATION).lower()


def bare(text: str) -> str:
    """A text without surrounding spaces and one final full stop: all that the strict rules forgive."""
    return text.strip().removesuffix(".")


def _is_article(text: str, named: set[str]) -> bool:
    return named == {"A"} and re.search(r"\bA\s+[a-z]", text) is not None
