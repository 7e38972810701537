"""ODV-Bench (StreamForest, arXiv 2509.24871): driving scenes, each question about a stretch of its own.

Schema from the loaders of StreamForest and VLMEvalKit; written for it and tested on files of our own only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import LETTERS, Sample
from streamvlm.benchmarks.suites.reading import listed, need, read_lines

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
        files = sorted(p for p in annotations.rglob("*.json*")) if annotations.is_dir() else [annotations]
        return [
            _sample(record, f"{path.stem}/{number}", path.stem)
            for path in files
            for number, record in enumerate(read_lines(path))
        ]


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
