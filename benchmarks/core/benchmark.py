"""What a benchmark is: where its samples come from, what is asked, what is right, how it is exported."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from streamvlm.benchmarks.core.footage import Footage, VideoFile
from streamvlm.benchmarks.core.normalise import NO_ANSWER, bare, integer, letter, plain, yes_no
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, RAW, STRICT, Mark, Scores, Share, micro, tally


class Benchmark(ABC):
    """One benchmark. Stateless; a subclass is one file of `suites`."""

    name: ClassVar[str]
    title: ClassVar[str]
    home: ClassVar[str]  # where annotations and videos are
    average: ClassVar[str] = "micro average: right answers over all questions"
    needs_files: ClassVar[bool] = True  # annotations and videos; False if it makes its own
    official: ClassVar[bool] = True  # whether our score is the official one

    def adjusted(self, **options: Any) -> Self:  # noqa: ANN401
        """The same with other settings, where it has any.

        Raises:
            ValueError: it has none.
        """
        if options:
            raise ValueError(f"{self.name} has no setting {', '.join(options)}")
        return self

    def settings(self) -> dict[str, Any]:
        """What `adjusted` has set; {} for most."""
        return {}

    @abstractmethod
    def load(self, annotations: Path) -> list[Sample]:
        """All samples, in the order of the annotations.

        Raises:
            ValueError: the file is not in the benchmark's schema; says where.
        """

    @abstractmethod
    def protocols(self) -> dict[str, Protocol]:
        """By name: "official" first, "stream", and the baselines."""

    def footage(self, video: str, root: Path | None) -> Footage:
        """The video named by a sample, below the folder of videos."""
        return VideoFile((root or Path()) / video)

    def constant(self, sample: Sample) -> Result:
        """What somebody says who always says the same."""
        always = {"choice": "A", "number": "1", "yesno": "Yes"}
        return Result(sample.id, "answered", always.get(sample.kind, ""))

    def blind(self, sample: Sample) -> Result:
        """What somebody says who has seen neither video nor model."""
        return self.constant(sample)

    def normalised(self, sample: Sample, result: Result) -> str:
        """The answer as exported; NO_ANSWER where none can be made out."""
        if result.status != "answered":
            return NO_ANSWER
        match sample.kind:
            case "choice":
                said = letter(result.text, sample.options)
            case "number":
                said = integer(result.text)
            case "yesno":
                said = yes_no(result.text)
            case _:
                said = plain(result.text)
        return said or NO_ANSWER

    def correct(self, sample: Sample, text: str) -> bool:
        """The benchmark's own rule."""
        return plain(text) == plain(sample.truth)

    def marks(self, sample: Sample, result: Result) -> list[Mark]:
        """What a result earns under each rule."""
        rules = {
            OFFICIAL: self.correct(sample, self.normalised(sample, result)),
            RAW: result.status == "answered" and self.correct(sample, result.text),
            STRICT: result.status == "answered" and bare(result.text) == sample.truth,
        }
        return [Mark(rule, sample.task, float(right)) for rule, right in rules.items()]

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """Named averages over tasks, 0 to 1; None where one cannot be had from these tasks."""
        return {"total": micro(tasks.values())}

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """Measures that are no accuracy."""
        return {}

    def score(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> Scores:
        """Everything; a sample without result counts as wrong, as "missing".

        Raises:
            ValueError: there are results for samples that are not in the benchmark.
        """
        unknown = sorted(results.keys() - {s.id for s in samples})
        if unknown:
            raise ValueError(f"{len(unknown)} results are of no sample of {self.name}, among them {unknown[:3]}")
        found = {s.id: results.get(s.id) or Result(s.id, "missing") for s in samples}
        cells = tally(mark for s in samples for mark in self.marks(s, found[s.id]))
        status = Counter(r.status for r in found.values())
        return Scores(
            benchmark=self.name,
            average=self.average,
            cells=cells,
            totals={rule: self.totals(tasks) for rule, tasks in cells.items()},
            counts={"samples": len(samples), **{k: status[k] for k in ("answered", "failed", "missing")}},
            extras=self.extras(samples, found),
        )

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """Write the results in the benchmark's own format; the files made."""
        raise ValueError(f"{self.name} has no result format of its own to export to")

    def read_answers(self, path: Path, samples: Sequence[Sample]) -> dict[str, Result]:
        """Results from a file in the benchmark's own format."""
        raise ValueError(f"{path}: {self.name} has no result format of its own; give a run's folder")


def prompt_hash(samples: Iterable[Sample]) -> str:
    """sha256 over every id and prompt, in order: equal for equal questions."""
    digest = hashlib.sha256()
    for sample in samples:
        poll = sample.alert.poll if sample.alert else ""
        digest.update("\0".join((sample.id, repr(sample.time), sample.prompt, poll, "\n")).encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of an annotation file, or of all JSON files of a folder in order of name."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("**/*.json*")) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
