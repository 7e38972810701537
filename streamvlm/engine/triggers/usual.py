"""How a condition is watched for if nobody says how: by what the model was trained to be asked."""

from __future__ import annotations

import re

from streamvlm.engine.triggers.base import Trigger
from streamvlm.engine.triggers.commentary import Commentary
from streamvlm.engine.triggers.probe import Probe
from streamvlm.engine.triggers.reply import Reply
from streamvlm.models.base import VisionLanguageModel

# Conditions that name a value, and the question for it.
_NAMED = (
    (re.compile(r"(.+?) (?:shows|just changed to) (.+)"), "what does {} show?"),
    (re.compile(r"(.+) is in the (.+)"), "where is {}?"),
)
_JUST = re.compile(r"\bjust\b")  # "the red star just left"


def usual_trigger(model: VisionLanguageModel, condition: str) -> Trigger:
    """A `Probe`; or what a model's config names in `streamvlm_watches` as more reliable with it.

    `reply`: it answers with bare values ("80", not "The sign shows 80."), so that a condition that names a value ("the
    sign shows 80", "the red star is in the top left") is known from its `Reply`. `commentary`: it narrates every second
    in the words of conditions, so that what just happened is known from those lines.
    """
    known = getattr(model.module.config, "streamvlm_watches", ())
    if "reply" in known:
        for pattern, question in _NAMED:
            if found := pattern.fullmatch(condition.rstrip(". ")):
                return Reply(question.format(found[1]), found[2])
    if "commentary" in known and _JUST.search(condition):
        return Commentary.of(condition)
    return Probe()
