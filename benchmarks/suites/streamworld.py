"""StreamWorld: rendered streams of known truth, questions at set distances, conditions to be told of. Needs no files.

Every seed is one stream. Its questions are an `exam` (streamvlm/world/exam.py) over the whole stream, so that they are
asked at every age of it; its watches run from its start to its end. What is seen has been through H.264.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import torch

from streamvlm import Frame
from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.benchmarks.core.protocol import Protocol, protocols
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, Mark, Share, micro, percent, tally
from streamvlm.benchmarks.measure import mean_and_sd
from streamvlm.world.exam import ASKED, DISTANCES, WINDOW, exam
from streamvlm.world.kinds import KINDS
from streamvlm.world.questions import TimedQuestion
from streamvlm.world.story import Story
from streamvlm.world.truths import Onset, watches_for
from streamvlm.world.video import VideoSpec, encode, frames

FIRST_SEED = 3_000_000  # far from those of training (streamvlm/train/tiny.toml)
LEARNT = range(200_000, 200_008)  # seeds on which the constant answers are counted
LEARNT_SECONDS = 600.0
NAMES = {WINDOW: "window", 60.0: "1 min", 600.0: "10 min", 3600.0: "1 h", 21600.0: "6 h"}
WATCH = "watch"
LATE = 2.0  # seconds after a condition has come true within which it should be told
CHUNK = 30.0  # seconds of stream that are encoded at a time


@dataclass(frozen=True, slots=True)
class Exams:
    """What is made."""

    seed_base: int = FIRST_SEED
    seeds: int = 3
    per_cell: int = 100  # questions of each kind and distance, per seed
    longest: float = 600.0  # seconds, of the distances
    watches: int = 12  # conditions per seed
    tail: float = 600.0  # seconds of stream after the first moment at which the longest distance can be asked about

    def __post_init__(self) -> None:
        if min(self.seed_base, self.watches) < 0 or min(self.seeds, self.per_cell) < 1:
            raise ValueError(f"needs seed_base and watches >= 0, seeds and per_cell >= 1, got {self}")
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
        return len(ASKED) + len(self.distances) - 1


class StreamWorld(Benchmark):
    """A cell is a kind of question, at a distance where that is not the window."""

    name = "streamworld"
    title = "StreamWorld"
    home = "made by this project from seeds; nothing to download"
    average = "micro average over all questions of a group; cells are averaged over seeds beside it"
    needs_files = False

    def __init__(self, exams: Exams | None = None) -> None:
        self.exams = exams or Exams()

    def adjusted(self, **options: Any) -> Self:  # noqa: ANN401
        """With other seeds, sizes or distances."""
        return type(self)(replace(self.exams, **options))

    def settings(self) -> dict[str, Any]:
        """What it was made with."""
        return asdict(self.exams)

    def protocols(self) -> dict[str, Protocol]:
        """Streamed once; `memory` keeps on disk what leaves the window, `notes` writes down what happens as well."""
        stream = Protocol("stream", "stream", policy="sink_window", fps=2.0)
        memory = replace(stream, name="memory", memory=True)
        notes = replace(memory, name="notes", notes=True)
        found = protocols(stream, stream)
        return {p.name: p for p in (stream, memory, notes)} | {
            k: replace(p, fps=2.0) for k, p in found.items() if k != "stream"
        }

    def load(self, annotations: Path) -> list[Sample]:
        """All seeds, in order; of a seed, its questions in order of time and then its watches."""
        made = self.exams
        return [
            sample
            for seed in range(made.seed_base, made.seed_base + made.seeds)
            for sample in (*self._questions(seed), *self._watches(seed))
        ]

    def footage(self, video: str, root: Path | None) -> Footage:
        """Rendered as it is looked at."""
        return Rendered(Story(int(video)), self.exams.seconds)

    def _questions(self, seed: int) -> Iterator[Sample]:
        made = self.exams
        asked = exam(Story(seed), made.seconds, made.per_cell * made.cells, distances=made.distances)
        for number, one in enumerate(asked):
            yield _question(one, f"{seed}/{number}", str(seed))

    def _watches(self, seed: int) -> Iterator[Sample]:
        made = self.exams
        if not made.watches:
            return
        for number, watch in enumerate(watches_for(Story(seed), made.seconds, made.watches)):
            # One that never comes true is due nowhere: any alarm of it is false.
            due = tuple(onset.since for onset in watch.onsets) or (made.seconds,)
            alert = Alert(due, made.seconds, condition=watch.condition, count=None)
            yield Sample(
                f"{seed}/watch/{number}", WATCH, str(seed), 0.0, "", "", "proactive", alert=alert, group=str(seed)
            )

    def onsets(self, sample: Sample) -> Sequence[Onset]:
        """The times a watch came true."""
        seed, _, number = sample.id.split("/")
        return watches_for(Story(int(seed)), self.exams.seconds, self.exams.watches)[int(number)].onsets

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
        """A watch has a mark for each time its condition came true: whether that was told in time."""
        if sample.alert is None:
            return super().marks(sample, result)
        calls = [turn.time for turn in result.turns]
        return [Mark(OFFICIAL, WATCH, float(_told(onset, calls) is not None)) for onset in self.onsets(sample)]

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
        return {"seeds": len(seeds), "over seeds": by_cell, **self._alarms(samples, results)}

    def _alarms(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        watched = [s for s in samples if s.alert is not None]
        if not watched:
            return {}
        hits = onsets = calls = 0
        for sample in watched:
            times = [turn.time for turn in results[sample.id].turns]
            found = self.onsets(sample)
            hits += sum(_told(onset, times) is not None for onset in found)
            onsets, calls = onsets + len(found), calls + len(times)
        hours = len(watched) * self.exams.seconds / 3600
        f1 = 2 * hits / (onsets + calls) if onsets + calls else 0.0
        return {"watch F1": percent(f1), "false alarms per watch and hour": round((calls - hits) / hours, 2)}


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


def _told(onset: Onset, calls: Iterable[float]) -> float | None:
    """The first alarm that tells of it in time."""
    return next((call for call in sorted(calls) if onset.begins <= call <= onset.since + LATE), None)


class Rendered(Footage):
    """A story as a video."""

    def __init__(self, story: Story, seconds: float) -> None:
        self._story = story
        self._seconds = seconds

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._seconds

    def pictures(self, times: Sequence[float], origin: float) -> Iterator[Frame]:
        """Drawn at these moments, and not encoded."""
        from streamvlm.world.paint import Painter

        painter = Painter()
        for moment in times:
            yield Frame(_tensor(painter.frame(self._story, moment)), moment - origin, 1.0)

    def stream(self, fps: float) -> Iterator[Frame]:
        """All of it, through H.264, a stretch at a time, so that no stream is too long."""
        drawn = frames(self._story, self._seconds, fps)
        spec = VideoSpec(fps=max(1, round(fps)))
        while stretch := list(islice(drawn, round(CHUNK * fps))):
            file = io.BytesIO()
            encode((picture for _, picture in stretch), file, spec)
            file.seek(0)
            with av.open(file) as container:
                for (time, _), picture in zip(stretch, container.decode(video=0), strict=True):
                    yield Frame(_tensor(picture.to_ndarray(format="rgb24")), time, 1 / fps)


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
