"""An exam on a stream of any age: every kind of question, at set distances from what it needs to have seen.

The truth is the event log of the whole story, and only the log is read: nothing is rendered. Where the words of a
question fit several events ("where was the red star before it moved?"), the latest is meant, as people mean it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from streamvlm.world.choices import lettered
from streamvlm.world.evenness import answer_keys
from streamvlm.world.forward import is_latest
from streamvlm.world.kinds import KINDS, MOMENTS, happened, is_over, make, was
from streamvlm.world.questions import Question, TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.view import View
from streamvlm.world.wording import clock

WINDOW = 0.0  # the distance of what the last 16 s show
DISTANCES = (WINDOW, 60.0, 600.0, 3600.0, 21600.0)  # seconds
ASKED = tuple(kind.name for kind in KINDS.values() if kind.group != "proactive")
GRID = 2  # times asked per second: a stream of 2 frames per second has a frame at each of them
_SHOWN = 14.0  # seconds back that an earlier moment may lie to be in the window, with what is needed around it
_SPREAD = 0.1  # of a distance, how far it may be off
_ROOM = 60.0  # seconds of stream to look for a question in, so that its answer can be one that is rare
_TRIES, _CANDIDATES = 160, 12


@dataclass(frozen=True, slots=True)
class Cell:
    """A kind of question at a distance."""

    kind: str
    distance: float  # seconds

    @property
    def lead(self) -> float:
        """Seconds of stream before the first such question."""
        return math.ceil(round(self.distance * (1 + _SPREAD), 3)) + 2.0


def exam(
    story: Story,
    seconds: float,
    count: int,
    seed: int = 0,
    *,
    kinds: Sequence[str] = ASKED,
    distances: Sequence[float] = (WINDOW,),
    options: float = 0.0,
) -> list[TimedQuestion]:
    """`count` questions in time order on the first `seconds` of a story, kinds and distances in turn.

    Only questions that name their moment (kind `episode`) are asked at distances other than WINDOW. The share
    `options` offers lettered answers. Answers are as even as the story allows, within a kind and a form of words.

    Raises:
        ValueError: an unknown kind, a distance that the stream is too short for, or too little to ask about.
    """
    cells = _cells(kinds, distances, seconds)
    examiner = _Examiner(story, random.Random(f"exam/{story.seed}/{seed}"))
    order = examiner.rng.sample(cells, len(cells))
    asked: list[TimedQuestion] = []
    for number in range(count):
        turn = number % len(order)
        share = (number / count, (number + 1) / count)
        plans = ((cell, part) for part in (share, (0.0, 1.0)) for cell in (*order[turn:], *order[:turn]))
        one = next((one for cell, part in plans if (one := examiner.ask(cell, seconds, part))), None)
        if one is None:
            raise ValueError(f"only {number} of {count} questions of {list(kinds)} can be asked in {seconds} s")
        asked.append(one)
    return sorted((examiner.finish(one, options) for one in asked), key=lambda one: one.time)


def _cells(kinds: Sequence[str], distances: Sequence[float], seconds: float) -> list[Cell]:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown kinds of question {unknown}; kinds are {tuple(KINDS)}")
    cells = [Cell(k, d) for k in kinds for d in distances if d == WINDOW or k == "episode"]
    if not cells or min(distances) < 0 or 0 < min((d for d in distances if d), default=60) < 2 * _SHOWN:
        raise ValueError(
            f"no question of {list(kinds)} can be asked {list(distances)} s back: distances are 0, the window, or from "
            f"{2 * _SHOWN:g} s, which needs the kind 'episode'"
        )
    lead = max(cell.lead for cell in cells)
    if seconds < lead + 2:
        raise ValueError(
            f"questions {max(c.distance for c in cells):g} s back need a stream of {lead + 2:g} s, got {seconds:g} s"
        )
    return cells


@dataclass(slots=True)
class _Examiner:
    """Finds questions on one story, and remembers what has been answered."""

    story: Story
    rng: random.Random
    used: Counter[tuple[str, ...]] = field(default_factory=Counter)
    said: set[tuple[float, str]] = field(default_factory=set)

    def ask(self, cell: Cell, seconds: float, part: tuple[float, float]) -> TimedQuestion | None:
        """A question of a cell in a part (0..1) of the stream, with the answer least given so far."""
        first, last = cell.lead, seconds - 1 / GRID
        middle, reach = (part[0] + part[1]) / 2, max((part[1] - part[0]) / 2, _ROOM / 2 / (last - first))
        low, high = max(0.0, middle - reach), min(1.0, middle + reach)
        found = list(self._candidates(cell, (first + low * (last - first), first + high * (last - first))))
        if not found:
            return None
        best = min(found, key=lambda one: [self.used[key] for key in answer_keys(one.question)])
        self.used.update(answer_keys(best.question))
        self.said.add((best.time, best.question.text))
        return best

    def finish(self, one: TimedQuestion, options: float) -> TimedQuestion:
        """With its answers to choose from, in a share of cases."""
        if not one.question.others or self.rng.random() >= options:
            return one
        return TimedQuestion(one.time, lettered(one.question, self.rng), one.distance)

    def _candidates(self, cell: Cell, span: tuple[float, float]) -> Iterator[TimedQuestion]:
        found = 0
        for _ in range(_TRIES):
            now = math.ceil(self.rng.uniform(*span) * GRID) / GRID
            view = View(self.story, 0.0, min(now, math.floor(span[1] * GRID) / GRID), self.rng)
            question = self._make(cell, view)
            if question and (view.now, question.text) not in self.said:
                found += 1
                if question.needs:
                    question = replace(question, needs=(question.needs[0], min(question.needs[1], view.now)))
                yield TimedQuestion(view.now, question, cell.distance)
            if found == _CANDIDATES:
                return

    def _make(self, cell: Cell, view: View) -> Question | None:
        if cell.kind == "episode":
            return self._earlier(cell, view)
        question = make(cell.kind, view)
        return None if question and question.task == "clue" and not is_latest(view, question) else question

    def _earlier(self, cell: Cell, view: View) -> Question | None:
        """About a whole second the cell's distance ago, so that its clock time names it exactly."""
        near, far = (1.0, _SHOWN) if cell.distance == WINDOW else (
            cell.distance * (1 - _SPREAD), cell.distance * (1 + _SPREAD)
        )  # fmt: skip
        low, high = math.ceil(max(1.0, view.now - far)), math.floor(view.now - near)
        if low > high:
            return None
        time = float(self.rng.randint(low, high))
        task, named = self.rng.choice((*MOMENTS, "happened")), f"at {clock(time)}"
        question = happened(view.story, time, named) if task == "happened" else was(view, task, time, named)
        return question if question and is_over(question, view) else None
