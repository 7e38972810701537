"""What the generator makes: how many of a kind, how even their answers, and how far one gets without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from streamvlm.world.exam import ASKED, WINDOW, exam
from streamvlm.world.happenings import Looks
from streamvlm.world.kinds import KINDS
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.templates import template


@dataclass(frozen=True, slots=True)
class KindReport:
    """One kind of question at one distance."""

    kind: str
    code: str  # OVO-Bench's name of the task
    distance: float  # seconds, as asked for; 0 is the window
    asked: int
    answers: int  # different ones
    most: float  # share of the most frequent answer
    constant: float  # accuracy of always saying the answer most frequent on other seeds
    words: float  # accuracy of saying what is most frequent on other seeds for the question's words
    back: float | None  # seconds, median, from the question back to the start of what it needs; None: the moment itself


def survey(
    first_seed: int,
    seeds: int,
    seconds: float,
    count: int,
    *,
    looks: Looks = "all",
    kinds: Sequence[str] = ASKED,
    distances: Sequence[float] = (WINDOW,),
) -> list[KindReport]:
    """Exams of `count` questions on the stories of `seeds` consecutive seeds, each kind and distance judged by itself.

    Raises:
        ValueError: fewer than two seeds, so that none is left to learn from, or what `exam` does not take.
    """
    if seeds < 2:
        raise ValueError(f"what is learnt on some seeds is tried on others, so at least 2 are needed, got {seeds}")
    asked: dict[tuple[str, float], list[tuple[int, TimedQuestion]]] = defaultdict(list)
    for seed in range(first_seed, first_seed + seeds):
        for one in exam(Story(seed, looks=looks), seconds, count, kinds=kinds, distances=distances):
            asked[one.question.task, one.distance].append((seed, one))
    return [_report(*cell, asked[cell]) for cell in sorted(asked, key=lambda c: (list(KINDS).index(c[0]), c[1]))]


def _report(kind: str, distance: float, asked: list[tuple[int, TimedQuestion]]) -> KindReport:
    answers = Counter(one.question.answer for _, one in asked)
    backs = [one.time - one.question.needs[0] for _, one in asked if one.question.needs]
    return KindReport(
        kind,
        KINDS[kind].code,
        distance,
        len(asked),
        len(answers),
        max(answers.values()) / len(asked),
        _accuracy(asked, lambda one: ""),
        _accuracy(asked, lambda one: template(one.question.text)),
        median(backs) if backs else None,
    )


def _accuracy(asked: list[tuple[int, TimedQuestion]], given: Callable[[TimedQuestion], str]) -> float:
    """How often the answer most frequent on seeds of the other parity for what is `given` is right."""
    learnt: tuple[dict[str, Counter[str]], ...] = (defaultdict(Counter), defaultdict(Counter))
    for seed, one in asked:
        for key in {"", given(one)}:  # what was never seen is answered by the most frequent answer of all
            learnt[seed % 2][key][one.question.answer] += 1
    right = 0
    for seed, one in asked:
        other = learnt[1 - seed % 2]
        counts = other.get(given(one)) or other.get("", Counter())
        right += bool(counts) and counts.most_common(1)[0][0] == one.question.answer
    return right / len(asked)


def lines(reports: Iterable[KindReport]) -> list[str]:
    """The report as lines of a table."""
    head = f"{'kind':<11}{'task':<5}{'back':>7}{'asked':>7}{'answers':>9}{'most':>7}{'constant':>10}{'words':>7}"
    rows = (
        f"{r.kind:<11}{r.code:<5}{'window' if r.distance == WINDOW else f'{r.distance:g} s':>7}{r.asked:>7}"
        f"{r.answers:>9}{r.most:>7.0%}{r.constant:>10.0%}{r.words:>7.0%}"
        f"{'now' if r.back is None else f'{r.back:.1f} s back':>14}"
        for r in reports
    )
    return [f"{head}{'needs':>14}", *rows]
