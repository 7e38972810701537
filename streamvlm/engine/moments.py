"""A question about an earlier moment, told in the words that the model read before the frames of that moment.

People say "at 2:10" or "five minutes ago"; the model was shown "<130.0 seconds>". Naming the frame in its own words
makes finding it a matter of matching them, whether it is in the window or was brought back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamvlm.models.base import VisionLanguageModel
from streamvlm.retrieval.spans import named_moment

NEAR = 2.0  # seconds; a frame farther than this from the moment is not it
STRETCH = 4.0  # seconds; a longer stretch is not one moment
_PRESENT = re.compile(r"\b(?:still|now|yet|since|already|again|anymore|any more|compared?|changed?|same)\b", re.I)


def moment_of(question: str, between: tuple[float, float] | None, now: float) -> float | None:
    """Seconds of stream time that a question asked at `now` is about; None where it is no single moment."""
    if between is None:
        return named_moment(question, now)
    return sum(between) / 2 if between[1] - between[0] <= STRETCH else None


def about_now(question: str) -> bool:
    """Whether its words also ask of the present: "is the star that was there at 0:03 still there?"."""
    return _PRESENT.search(question) is not None


def told(model: VisionLanguageModel, question: str, moment: float | None, frames: Iterable[float]) -> str:
    """`question` with the time of the frame nearest to `moment` before it; `frames` are their times, in seconds.

    As it is where there is no such moment, no frame near it, or no family of models that reads times.
    """
    if moment is None:
        return question
    nearest = min(frames, key=lambda time: abs(time - moment), default=None)
    if nearest is None or abs(nearest - moment) > NEAR or not model.time_words(nearest):
        return question
    return f"{model.time_words(nearest)} {question}"
