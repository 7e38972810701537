"""ODV-Bench (StreamForest, arXiv 2509.24871): driving scenes, each question about a stretch of its own.

Schema from the loaders of StreamForest and VLMEvalKit; written for it and tested on files of our own only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import LETTERS, Result, Sample
from streamvlm.benchmarks.suites.reading import listed, need, read_lines, write_table

FOUR = LETTERS[:4]  # the most options that a question has
COPIED = ("task", "subtask", "question", "video", "start", "end")
PROMPT = "{question}\nOptions:\n{options}\nReply with the letter of the right option and nothing else."


class OdvBench(Benchmark):
    """Annotations are JSON lists or JSON lines, in a folder or one file."""

    name = "odvbench"
    title = "ODV-Bench"
    home = "https://huggingface.co/datasets/MCG-NJU/ODV-Bench, annotations in MCG-NJU/StreamForest-Annodata"
    average = "micro average over all questions; blank answers count as wrong"

    def protocols(self) -> dict[str, Protocol]:
        """Official: [start, end] of the record at one frame a second."""
        return protocols(Protocol("official", "clip"), STREAM)

    def load(self, annotations: Path) -> list[Sample]:
        """The right answer is a text; its letter is that of the first equal candidate, as in the peers' code."""
        return [_sample(record, where, group) for record, where, group in _records(annotations)]

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """The table that VLMEvalKit's `ODVBench` evaluates (exact matching); lmms-eval's task reads no file."""
        rows = []
        for index, (record, where, group) in enumerate(_records(annotations)):
            if where in results:
                sample = _sample(record, where, group)
                row = {"index": index} | {key: record.get(key, "") for key in COPIED}
                row |= {a: option for a, option in zip(FOUR, [*sample.options, *("",) * len(FOUR)], strict=False)}
                row |= {"answer": sample.truth, "answer_text": record["answer"]}
                rows.append(row | {"prediction": self.normalised(sample, results[where])})
        return [write_table(out / "streamvlm_ODVBench.tsv", rows)]


def _records(annotations: Path) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(record, id, name of its file) in order."""
    files = sorted(annotations.rglob("*.json*")) if annotations.is_dir() else [annotations]
    for path in files:
        for number, record in enumerate(read_lines(path)):
            yield record, f"{path.stem}/{number}", path.stem


def _sample(record: Mapping[str, Any], where: str, group: str) -> Sample:
    options = tuple(map(str, need(record, "candidates", list, where)))
    answer = str(need(record, "answer", (str, int, float), where))
    if answer not in options:
        raise ValueError(f"{where}: the answer {answer!r} is none of the candidates {list(options)}")
    return Sample(
        id=where,
        task=": ".join(str(record[k]) for k in ("task", "subtask") if record.get(k)),
        video=need(record, "video", str, where),
        time=float(need(record, "end", (int, float), where)),
        start=float(need(record, "start", (int, float), where)),
        prompt=PROMPT.format(question=need(record, "question", str, where), options=listed(options)),
        truth=LETTERS[options.index(answer)],
        kind="choice",
        options=options,
        group=group,
    )
