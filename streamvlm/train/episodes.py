"""Episodes: a sink frame, frames brought back, a window of frames, and questions asked somewhere along it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from streamvlm.prompts import at_moment
from streamvlm.train.clips import Clips
from streamvlm.train.happening import happening
from streamvlm.train.odds import Odds, even
from streamvlm.train.redundancy import Dropping, keep_mask
from streamvlm.train.reminders import noted, reminded
from streamvlm.train.shots import Recollection, Shot, brought_back
from streamvlm.world import standing
from streamvlm.world.choices import lettered
from streamvlm.world.conditions import SECOND
from streamvlm.world.kinds import make, moment
from streamvlm.world.questions import Question, restyle
from streamvlm.world.story import Story
from streamvlm.world.view import View
from streamvlm.world.wording import clock

LATEST = 99999.0  # seconds, the largest timestamp that is trained
SCENES: Mapping[str, float] = {
    "color": 1, "shape": 1, "count": 2, "place": 1, "sign": 1, "is-there": 1, "next": 0.3,
}  # fmt: skip
_EVENTFUL = ("action", "step", "narrate", "watch", "note")  # kinds that are asked when something happens
_TIMELESS = (*SCENES, "episode", "noted", "watch")  # kinds that make sense where every frame is a new scene
# Kinds with usual answers. A watch is asked again and again and mostly does not hold: a model should expect that.
_EVEN = ("count", "is-there", "action", "never", "repetition", "step", "clue")
_SAMPLED, _ASKED_EACH = 400, 3  # windows, and questions of each kind, from which the usual answers are known
_TURNS, _TRIES = 6, 20  # kinds drawn for a question, and goes at each: most cannot be asked or are left out
_FREE = ("narrate", "note", "watch")  # texts that are the engine's own and are never restyled
_FEWEST_AHEAD = 2  # frames of the window after a question whose answer is live
# How many frames come before each token is read: one, as many as they like, or few, as where tokens are fast.
_PACES = ((1,), (0, 1, 2), (0, 0, 0, 1))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question asked right after a frame of the episode."""

    shot: int  # index into the episode's shots
    question: Question
    about: tuple[int, ...] = ()  # the shots that show the answer, where only some do
    live: bool = False  # whether its answer sees what comes while it is written, group-decoupled
    follows: tuple[int, ...] = ()  # then: the newest shot that each written token sees; the last is for all after it


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """What one training sequence holds, before it becomes tokens."""

    system: bool  # whether a system prompt opens it
    shots: tuple[Shot, ...]  # the sink frame, the past of what was brought back, what was brought back, the window
    recalled: int  # how many shots were brought back: questions see them, the window does not
    asked: tuple[Asked, ...]
    kept: Tensor | None = None  # bool [shots, tokens] what of each shot is there; None: everything
    happenings: tuple[tuple[int, tuple[int, int, int, int]], ...] = ()  # (shot, what is happening in it), where known
    past: int = 0  # how many shots after the sink are seen only by what was brought back


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the questions of an episode are about."""

    kinds: Mapping[str, float] = field(default_factory=lambda: SCENES)  # kind of question to how often it is asked
    recall: float = 0.0  # share of episodes with frames brought back
    options: float = 0.0  # share of questions that offer lettered answers
    dropping: float = 0.0  # share of episodes without the vision tokens that a pruner would drop
    reminded: float = 0.0  # share of questions with notes before them that do not matter
    odds: Odds = field(default_factory=Odds)  # at which questions are left out
    live: float = 0.0  # share of questions with enough frames after them whose answers are live


def usual(clips: Clips, window: int) -> Odds:
    """The odds that make the answers even to what can be asked about windows of these clips."""
    rng = random.Random(f"odds/{clips.spec.name}")
    authors = (_Author(clips, window, Recipe(), rng) for _ in range(_SAMPLED))
    asked = (author.ask(kind) for author in authors for kind in _EVEN for _ in range(_ASKED_EACH))
    return even(one.question for one in asked if one)


def make_episode(
    clips: Clips, window: int, questions: int, rng: random.Random, recipe: Recipe | None = None
) -> Episode:
    """A sink and `window` frames of one clip at a random rate and a random hour, with `questions` questions."""
    return _Author(clips, window, recipe or Recipe(), rng).write(questions)


class _Author:
    """Makes up one episode."""

    def __init__(self, clips: Clips, window: int, recipe: Recipe, rng: random.Random) -> None:
        self.clips, self.recipe, self.rng = clips, recipe, rng
        self.clip = rng.randrange(clips.spec.clips)
        strides = [s for s in _strides(clips, recipe) if (window - 1) * s < clips.spec.frames]
        self.stride = stride = rng.choice(strides or [1])
        self.first = rng.randrange(clips.spec.frames - max(0, (window - 1) * stride))
        self.sink, self.start = self._opening(stride)
        steps = range(window)
        fps = clips.spec.fps
        firsts = [self.first + i * stride for i in steps]
        self.window = [
            Shot(self.clip, frame, self.start + i * stride / fps, max(0, frame - stride))
            for i, frame in enumerate(firsts)
        ]
        recalls = window and rng.random() < recipe.recall
        self.back = brought_back(clips, self.sink, self.window, stride, rng) if recalls else Recollection()
        self.lead = 1 + len(self.back.past) + len(self.back.shots)  # shots before the window

    def _opening(self, stride: int) -> tuple[Shot, float]:
        """The sink and the time of the window's first frame."""
        rng, fps = self.rng, self.clips.spec.fps
        if rng.random() < 0.15:  # the stream has only begun: the window follows its sink at once
            self.first = min(stride, self.first)
            return Shot(self.clip, 0, 0.0, 0), self.first / fps
        start = min(LATEST - 60, 10 ** rng.uniform(0.3, 5))
        far = 0.0 if rng.random() < 0.7 else rng.uniform(0, start)
        frame = rng.randrange(self.clips.spec.frames)
        return Shot(self.clip, frame, far, frame), start

    @property
    def story(self) -> Story:
        return self.clips.stories[self.clip]

    def seconds(self, shot: Shot) -> float:
        """The time of a shot in its story."""
        return shot.frame / self.clips.spec.fps

    def write(self, questions: int) -> Episode:
        back = self.back
        shots = (self.sink, *back.past, *back.shots, *self.window)
        asked: list[Asked] = []
        kinds = {k: w for k, w in self.recipe.kinds.items() if self.clips.spec.kind == "slow" or k in _TIMELESS}
        for kind in self.rng.choices([*kinds], [*kinds.values()], k=questions * _TURNS):
            if len(asked) == questions:
                break
            made = next((made for made in (self.ask(kind) for _ in range(_TRIES)) if made), None)
            if made:
                asked.append(self._followed(replace(made, question=self._finish(made.question))))
        kept = self._kept() if self.rng.random() < self.recipe.dropping else None
        system, told = self.rng.random() < 0.15, self._happenings()
        asked.sort(key=lambda one: one.shot)  # those that see much stand together: attention computes less in vain
        return Episode(system, shots, len(back.shots), tuple(asked), kept, told, len(back.past))

    def _followed(self, asked: Asked) -> Asked:
        """A question or, where the engine could have it so, one whose answer follows the stream.

        What the engine asks by itself is of its moment, and streams with a store, from which frames are brought back,
        have no live answers.
        """
        last = self._index(len(self.window) - 1)
        if not self.recipe.live or self.back.shots or asked.question.task in _FREE:
            return asked
        if last - asked.shot < _FEWEST_AHEAD or self.rng.random() >= self.recipe.live:
            return asked
        pace, follows = self.rng.choice(_PACES), [asked.shot]
        while follows[-1] < last:
            follows.append(min(last, follows[-1] + self.rng.choice(pace)))
        return replace(asked, live=True, follows=tuple(follows[1:]))

    def _happenings(self) -> tuple[tuple[int, tuple[int, int, int, int]], ...]:
        """What happens in each frame of the window before which a second is to be seen."""
        if self.clips.spec.kind != "slow":
            return ()
        told = [(self._index(i), happening(self.story, self.seconds(s))) for i, s in enumerate(self.window)]
        return tuple(told[2:])

    def _kept(self) -> Tensor:
        """What a pruner that has been at work for a while keeps; the window's first frame is whole, as are others."""
        rng, stride = self.rng, self.stride
        cap = rng.randint(4, 8) if rng.random() < 0.2 else 16
        rule = Dropping(rng.uniform(0.03, 0.1), rng.choice([8, 12, 16, 24]), cap)
        lead = min(rng.randint(0, 10), self.first // stride)
        frames = [self.first - lead * stride + i * stride for i in range(lead + len(self.window))]
        mask = keep_mask(self.clips.frames[self.clip, frames], rule)[lead:] if frames else torch.ones(0, 16) > 0
        mask[:1] = True
        return torch.cat((torch.ones(self.lead, mask.shape[1], dtype=torch.bool), mask))

    def _finish(self, question: Question) -> Question:
        if question.task in _FREE or question.text.startswith("Notes:"):
            return question
        if question.others and self.rng.random() < self.recipe.options:
            question = lettered(question, self.rng)
        elif not question.text.startswith("<"):
            question = replace(question, text=restyle(question.text, self.rng))
        if not self.window or self.rng.random() >= self.recipe.reminded:
            return question
        return reminded(question, self.clips, self.window[0].pts, self.rng)

    def ask(self, kind: str) -> Asked | None:
        """A question of `kind` somewhere along the window, or None where it cannot be asked or is left out."""
        if kind == "noted":
            return self._noted()
        if not self.window:
            question = make(kind, self._view(self.sink)) if kind in SCENES else None
            return Asked(0, question, (0,)) if question else None
        shot = self._when(kind)
        if kind == "episode":
            return self._earlier(shot)
        view = self._view(self.window[shot])
        if kind == "note":
            since = self.window[self.rng.randrange(shot + 1)]
            question = standing.note(view, self.seconds(since), since.pts)
        elif kind == "watch" and self.clips.spec.kind == "cuts":
            question = standing.state(view)  # nothing happens there but cuts
        else:
            question = make(kind, view)
        if question and not self.recipe.odds.keep(question, self.rng):
            return None
        return Asked(self._index(shot), question, self._evidence(question, shot)) if question else None

    def _noted(self) -> Asked | None:
        """A question that needs nothing of what is to be seen: asked of the sink alone, too."""
        question = noted(self.clips, self.start, self.rng)
        return Asked(self._index(self._when("noted")) if self.window else 0, question) if question else None

    def _index(self, shot: int) -> int:
        """Where a frame of the window stands among the episode's shots."""
        return self.lead + shot

    def _evidence(self, question: Question, shot: int) -> tuple[int, ...]:
        if question.task == "note":
            return ()
        if question.needs is None:
            return (self._index(shot),)
        seen = [i for i in range(shot + 1) if question.needs[0] <= self.seconds(self.window[i]) <= question.needs[1]]
        return tuple(self._index(i) for i in seen) if len(seen) <= shot // 2 else ()

    def _view(self, shot: Shot) -> View:
        since = self.window[0] if self.window else shot
        return View(self.story, self.seconds(since), self.seconds(shot), self.rng, margin=(0, 0))

    def _when(self, kind: str) -> int:
        """After which frame of the window a question of `kind` is asked."""
        last = len(self.window) - 1
        if kind in _EVENTFUL and self.clips.spec.kind == "slow" and self.rng.random() < 0.7:
            busy = [i for i, shot in enumerate(self.window) if self._busy(self.seconds(shot))]
            if busy:
                return self.rng.choice(busy)
        return self.rng.randint(0, last) if self.rng.random() < 0.6 else last

    def _busy(self, time: float) -> bool:
        event = self.story.event_at(time)
        return event.kind != "start" and time < event.stop + SECOND

    def _earlier(self, shot: int) -> Asked | None:
        """About a frame that was seen earlier, in the window or brought back, named by the time before it."""
        back = bool(self.back.shots) and self.rng.random() < 0.6
        line = self.back.shots if back else self.window[: shot + 1]
        index = self.rng.randrange(len(line))
        about, now = line[index], self.window[shot].pts
        ago = round(now - about.pts)
        named = f"at {clock(about.pts)}" if self.rng.random() < 0.75 or ago < 2 else f"{ago} seconds ago"
        then = self.seconds(about)
        question = moment(View(self.clips.stories[about.clip], then, then, self.rng, margin=(0, 0)), then, named)
        if question is None or (question.text.startswith("what happened") and not _shown(line, index)):
            return None
        plain = question.text.removesuffix(f" {named}?") + "?"
        text = restyle(question.text if self.rng.random() < 0.8 else plain, self.rng)
        place = 1 + len(self.back.past) + index if back else self._index(index)
        return Asked(self._index(shot), replace(question, text=at_moment(about.pts, text)), (place,))


def _shown(line: Sequence[Shot], index: int) -> bool:
    """Whether the second before a shot is there to be seen as well."""
    return index > 1 and line[index].pts - line[index - 2].pts <= 2 * SECOND / 1.9


def _strides(clips: Clips, recipe: Recipe) -> list[int]:
    """How many frames to step so that the rate is 4, 2 (mostly), 1.3 or 1 per second; 2 and up to see what happens."""
    if clips.spec.kind == "cuts":
        return [1]
    return [2, 2, 2, 2, 2, 2, 1, 3, 4] if set(recipe.kinds) <= set(SCENES) else [2, 2, 2, 2, 2, 1]
