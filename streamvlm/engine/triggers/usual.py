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
    (re.compile(r"(the \w+) (?:now )?shows (\w+)", re.IGNORECASE), "what does {} show?"),
    (re.compile(r"(the \w+ \w+) is (?:now )?in the (\w+(?: \w+)?)", re.IGNORECASE), "where is {}?"),
)
_DEED = re.compile(r"\bjust (?:\w+ed|left|hit|shook)\b", re.IGNORECASE)  # "the red star just left"
# What cannot be taken for one value or one event.
_INVOLVED = re.compile(
    r"\b(?:and|or|not?|never|nobody|nothing|none|longer|than|if|unless|until|while)\b", re.IGNORECASE
)


def usual_trigger(model: VisionLanguageModel, condition: str) -> Trigger:
    """A `Probe`; or what a model's config names in `streamvlm_watches` as more reliable with it.

    `reply`: it answers with bare values ("80", not "The sign shows 80."), so that a condition that names a value ("the
    sign shows 80", "the red star is in the top left") is known from its `Reply`. `commentary`: it narrates every second
    in the words of conditions, so that what just happened ("the red star just left") is known from those lines.
    Anything with "and", "or", "not" and the like is left to the probe.
    """
    known = getattr(model.module.config, "streamvlm_watches", None) or ()
    plain = condition.strip(" .!?\"'")
    if _INVOLVED.search(plain):
        return Probe()
    if "reply" in known:
        for pattern, question in _NAMED:
            if found := pattern.fullmatch(plain):
                return Reply(question.format(found[1]), found[2])
    if "commentary" in known and _DEED.search(plain):
        return Commentary.of(plain)
    return Probe()
