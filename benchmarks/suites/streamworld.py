"""StreamWorld: rendered streams of known truth, questions at set distances, conditions to be told of. Needs no files.

Every seed is one stream. Its questions are an `exam` (streamvlm/world/exam.py) over the whole stream, so that they are
asked at every age of it; its watches run from its start to its end. What is seen has been through H.264.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.benchmarks.core.protocol import BASELINES, STREAM, Protocol
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, Mark, Share, f1, micro, percent, tally
from streamvlm.benchmarks.measure import mean_and_sd
from streamvlm.benchmarks.suites.rendered import Rendered
from streamvlm.world.exam import ASKED, DISTANCES, WINDOW, exam
from streamvlm.world.happenings import Looks
from streamvlm.world.kinds import KINDS
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.truths import Onset, Told, Watch, narration, watches_for

FIRST_SEED = 3_000_000  # far from those of training (streamvlm/train/tiny.toml)
LEARNT = range(200_000, 200_008)  # seeds on which the constant answers are counted
LEARNT_SECONDS = 600.0
NAMES = {WINDOW: "window", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 21600.0: "6 h"}
WATCH, NARRATE = "watch", "narrate"
PROMPT = 1.0  # seconds within which an event should be narrated
LATE = 2.0  # seconds after a condition has come true within which it should be told


@dataclass(frozen=True, slots=True)
class Exams:
    """What is made."""

    seed_base: int = FIRST_SEED
    seeds: int = 3
    per_cell: int = 100  # questions of each kind and distance, per seed
    longest: float = 600.0  # seconds, of the distances
    watches: int = 12  # conditions per seed
    narrated: bool = True  # whether it is to tell what happens
    tail: float = 600.0  # seconds of stream after the first moment at which the longest distance can be asked about
    kinds: tuple[str, ...] = ASKED  # of question
    looks: Looks = "all"  # all, those that training shows (seen), or mostly those that it never does (held_out)

    def __post_init__(self) -> None:
        if min(self.seed_base, self.watches) < 0 or min(self.seeds, self.per_cell) < 1:
            raise ValueError(f"needs seed_base and watches >= 0, seeds and per_cell >= 1, got {self}")
        if self.looks not in get_args(Looks):
            raise ValueError(f"looks must be one of {', '.join(get_args(Looks))}, got {self.looks!r}")
        if not self.distances:
            raise ValueError(
                f"longest must be at least {DISTANCES[1]:g} s, or 0 for the window only, got {self.longest}"
            )

    @property
    def distances(self) -> tuple[float, ...]:
        """Seconds."""
        return tuple(d for d in DISTANCES if d <= self.longest)

    @property
    def seconds(self) -> float:
        """Length of a stream."""
        return round(1.1 * max(self.distances)) + self.tail

    @property
    def cells(self) -> int:
        """Kinds at distances."""
        return len(self.kinds) + (len(self.distances) - 1) * ("episode" in self.kinds)


class StreamWorld(Benchmark):
    """A cell is a kind of question, at a distance where that is not the window."""

    name = "streamworld"
    title = "StreamWorld"
    home = "made by this project from seeds; nothing to download"
    average = "micro average over all questions of a group; cells are averaged over seeds beside it"
    needs_files = False

    def __init__(self, exams: Exams | None = None) -> None:
        self.exams = exams or Exams()
        self._conditions: dict[str, list[Watch]] = {}  # by stream: they take reading its whole story

    def adjusted(self, **options: Any) -> Self:  # noqa: ANN401
        """With other seeds, sizes or distances."""
        options |= {"kinds": tuple(options["kinds"])} if "kinds" in options else {}
        return type(self)(replace(self.exams, **options))

    def settings(self) -> dict[str, Any]:
        """What it was made with."""
        made = asdict(self.exams) | {"kinds": list(self.exams.kinds)}
        return {k: v for k, v in made.items() if k != "kinds" or self.exams.kinds != ASKED}

    def protocols(self) -> dict[str, Protocol]:
        """Streamed once; `memory` keeps on disk what leaves the window, `notes` writes down what happens as well,
        `notes_alone` only that. `afresh` shows every question the window, and nothing else, with full attention."""
        memory = replace(STREAM, name="memory", memory=True)
        notes = replace(memory, name="notes", notes=True)
        alone = replace(STREAM, name="notes_alone", notes=True)
        afresh = replace(STREAM, name="afresh", policy="full", afresh=True)
        return {p.name: replace(p, fps=STREAM.fps) for p in (STREAM, memory, notes, alone, afresh, *BASELINES)}

    def story(self, video: str) -> Story:
        """The story of a stream; streams are named by their seeds."""
        return Story(int(video), looks=self.exams.looks)

    def load(self, annotations: Path) -> list[Sample]:
        """All seeds, in order; of a seed, its questions in order of time and then its watches."""
        made = self.exams
        return [
            sample
            for seed in map(str, range(made.seed_base, made.seed_base + made.seeds))
            for sample in (*self._questions(seed), *self._watches(seed), *self._narration(seed))
        ]

    def footage(self, video: str, root: Path | None) -> Footage:
        """Rendered as it is looked at."""
        return Rendered(self.story(video), self.exams.seconds)

    def _questions(self, seed: str) -> Iterator[Sample]:
        made = self.exams
        count, distances = made.per_cell * made.cells, made.distances
        asked = exam(self.story(seed), made.seconds, count, kinds=made.kinds, distances=distances)
        for number, one in enumerate(asked):
            yield _question(one, f"{seed}/{number}", seed)

    def _watches(self, seed: str) -> Iterator[Sample]:
        made = self.exams
        if not made.watches:
            return
        for number, watch in enumerate(self._watched_for(seed)):
            # One that never comes true is due nowhere: any alarm of it is false.
            due = tuple(onset.since for onset in watch.onsets) or (made.seconds,)
            alert = Alert(due, made.seconds, condition=watch.condition, count=None)
            yield Sample(f"{seed}/watch/{number}", WATCH, seed, 0.0, "", "", "proactive", alert=alert, group=seed)

    def _narration(self, seed: str) -> Iterator[Sample]:
        if self.exams.narrated:
            alert = Alert((0.0,), self.exams.seconds)
            yield Sample(f"{seed}/{NARRATE}", NARRATE, seed, 0.0, "", "", "narration", alert=alert, group=seed)

    def happened(self, sample: Sample) -> Sequence[Told]:
        """What there was to narrate."""
        return narration(self.story(sample.video), self.exams.seconds)

    def onsets(self, sample: Sample) -> Sequence[Onset]:
        """The times a watch came true."""
        number = int(sample.id.rpartition("/")[2])
        return self._watched_for(sample.video)[number].onsets

    def _watched_for(self, video: str) -> list[Watch]:
        if video not in self._conditions:
            self._conditions[video] = watches_for(self.story(video), self.exams.seconds, self.exams.watches)
        return self._conditions[video]

    @cached_property
    def _constants(self) -> Mapping[str, str]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for seed in LEARNT:
            for one in exam(Story(seed), LEARNT_SECONDS, 20 * len(ASKED)):
                counts[one.question.task][one.question.answer] += 1
        return {kind: found.most_common(1)[0][0] for kind, found in counts.items()}

    def constant(self, sample: Sample) -> Result:
        """The answer most frequent for its kind on other seeds; no alarm."""
        kind = sample.task.split(",")[0]
        return Result(sample.id, "answered", self._constants.get(kind, ""))

    def marks(self, sample: Sample, result: Result) -> list[Mark]:
        """A watch has a mark for each time its condition came true, a narration for each event: was it told in time?"""
        if sample.alert is None:
            return super().marks(sample, result)
        if sample.kind == "narration":
            hits, events = matched(self.happened(sample), result)[0], len(self.happened(sample))
            return [Mark(OFFICIAL, NARRATE, float(number < hits)) for number in range(events)]
        calls = [turn.time for turn in result.turns]
        return [Mark(OFFICIAL, WATCH, float(told(onset, calls) is not None)) for onset in self.onsets(sample)]

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """Per group of kinds; what lies further back than the window apart."""
        groups: dict[str, list[Share]] = defaultdict(list)
        for task, share in tasks.items():
            kind, _, distance = task.partition(", ")
            groups[f"{KINDS[kind].group}{f', {distance}' if distance else ''}"].append(share)
        return {name: micro(shares) for name, shares in groups.items()}

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """Mean and standard deviation over seeds of every cell; alarms that were false."""
        seeds = sorted({s.group for s in samples})
        shares: dict[str, list[float]] = defaultdict(list)
        for seed in seeds:
            marks = (m for s in samples if s.group == seed for m in self.marks(s, results[s.id]))
            for task, share in tally(marks).get(OFFICIAL, {}).items():
                shares[task].append(share.accuracy or 0.0)
        spread = {task: mean_and_sd(values) for task, values in shares.items()}
        by_cell = {t: {"mean": percent(mean), "sd": percent(sd)} for t, (mean, sd) in spread.items()}
        return {
            "seeds": len(seeds),
            "over seeds": by_cell,
            **self._alarms(samples, results),
            **self._lines(samples, results),
        }

    def _lines(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        narrated = [s for s in samples if s.kind == "narration"]
        if not narrated:
            return {}
        counts = [(*matched(self.happened(s), results[s.id]), len(self.happened(s))) for s in narrated]
        hits, lines, events = (sum(one[k] for one in counts) for k in range(3))
        minutes = len(narrated) * self.exams.seconds / 60
        return {
            "narration F1": percent(f1(hits, events, lines)),
            "false lines per minute": round((lines - hits) / minutes, 3),
        }

    def _alarms(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        watched = [s for s in samples if s.kind == "proactive"]
        if not watched:
            return {}
        hits = onsets = calls = 0
        for sample in watched:
            times = [turn.time for turn in results[sample.id].turns]
            found = self.onsets(sample)
            hits += sum(told(onset, times) is not None for onset in found)
            onsets, calls = onsets + len(found), calls + len(times)
        hours = len(watched) * self.exams.seconds / 3600
        false = round((calls - hits) / hours, 2)
        return {"watch F1": percent(f1(hits, onsets, calls)), "false alarms per watch and hour": false}


def _question(one: TimedQuestion, key: str, seed: str) -> Sample:
    question = one.question
    assert question.answer, f"{question} has no answer"
    far = NAMES[one.distance] if one.distance != WINDOW else ""
    return Sample(
        id=key,
        task=f"{question.task}, {far}" if far else question.task,
        video=seed,
        time=one.time,
        prompt=question.text,
        truth=question.answer,
        kind="word",
        group=seed,
        distance=far or NAMES[WINDOW],
    )


def matched(happened: Sequence[Told], result: Result) -> tuple[int, int]:
    """(events that were told within a second, statements made); each statement counts for one event."""
    said = [(turn.time, text.strip()) for turn in result.turns for text in turn.content.split(";") if text.strip()]
    left, hits = list(said), 0
    for event in happened:
        found = next((s for s in left if s[1] == event.statement and abs(s[0] - event.time) <= PROMPT + 1e-6), None)
        if found is not None:
            left.remove(found)
            hits += 1
    return hits, len(said)


def told(onset: Onset, calls: Iterable[float]) -> float | None:
    """The first alarm that tells of it in time."""
    return next((call for call in sorted(calls) if onset.begins <= call <= onset.since + LATE), None)
