"""What is to be even over many questions, so that no answer can be guessed from the words of its question."""

from __future__ import annotations

from streamvlm.world.questions import Question
from streamvlm.world.templates import template
from streamvlm.world.wording import PAST


def answer_keys(question: Question) -> list[tuple[str, ...]]:
    """What is to be even, most important first: forms, answers to a form, answers to the same words."""
    kind, answer = question.task, _sort(question)
    form = _form(question)
    return [(kind, form), (kind, form, answer), (kind, form, template(question.text), answer)]


def _form(question: Question) -> str:
    """What sort of answer the words ask for, where a kind has several."""
    if question.task in ("episode", "before", "never", "order"):
        words = question.text.split()
        return words[1] if words[0] in ("what", "which", "did") and words[1] != "the" else words[0]
    return ""


def _sort(question: Question) -> str:
    """The answer, or what counts as one where hardly any is given twice."""
    answer = question.answer
    verb = next((word for word in answer.split() if word in PAST), None)
    if verb is None:
        return answer
    if " or " in question.text:
        return "first" if question.text.index(answer) < question.text.index(" or ") else "second"
    return "something" if question.task == "narrate" else verb
