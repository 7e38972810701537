"""StreamEQA (arXiv 2512.04451): embodied questions about the last minute of egocentric video.

Schema as of MrYF-Wang/StreamEQA at 01dc44a, from its loader; written for it and tested on files of our own only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.footage import Footage, VideoFile
from streamvlm.benchmarks.core.normalise import NO_ANSWER
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.scores import Share, micro, percent
from streamvlm.benchmarks.suites.reading import listed, moment, need, read_json, right_letter

PROMPT = "{question}\n{options}\nReply with the letter of the right option and nothing else. The best option is:"


class StreamEqa(Benchmark):
    """Annotations are a folder of JSON lists, or one of them."""

    name = "streameqa"
    title = "StreamEQA"
    home = "https://github.com/MrYF-Wang/StreamEQA (annotations), HD-EPIC (videos)"
    average = "micro average over all questions; its own script leaves blank answers out, see the extras"

    def protocols(self) -> dict[str, Protocol]:
        """Official: the last 64 s at one frame a second."""
        return protocols(Protocol("official", "clip", context=64.0), STREAM)

    def load(self, annotations: Path) -> list[Sample]:
        """Every question, those too that its own loader skips without a word."""
        return [_sample(record, where, group) for record, where, group in _records(annotations)]

    def footage(self, video: str, root: Path | None) -> Footage:
        """P09/P09-20240622-150155.mp4, or beside the others."""
        folder = (root or Path()) / video.split("-")[0]
        return VideoFile((folder if folder.is_dir() else root or Path()) / video)

    def correct(self, sample: Sample, text: str) -> bool:
        """The first character."""
        return text.strip()[:1].upper() == sample.truth

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """The same without blank answers, as its own script counts."""
        said = {s.id: self.normalised(s, results[s.id]) for s in samples}
        share = micro(Share(self.correct(s, said[s.id]), 1) for s in samples if said[s.id] != NO_ANSWER)
        return {"official, blanks left out": percent(share)}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """All records with our letter under the name `streamvlm`, as `streameqa.metrics` reads them."""
        samples = {s.id: s for s in self.load(annotations)}
        rows = [
            record | {"streamvlm": self.normalised(samples[where], results[where])}
            for record, where, _ in _records(annotations)
            if where in results
        ]
        out.mkdir(parents=True, exist_ok=True)
        (out / "streameqa_streamvlm.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
        return [out / "streameqa_streamvlm.json"]


def _records(annotations: Path) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(record, id, name of its file) in order."""
    for path in sorted(annotations.glob("*.json")) if annotations.is_dir() else [annotations]:
        for number, record in enumerate(read_json(path, list)):
            yield record, f"{path.stem}/{number}", path.stem


def _sample(record: Mapping[str, Any], where: str, group: str) -> Sample:
    options = tuple(map(str, need(record, "options", list, where)))
    return Sample(
        id=where,
        task=need(record, "task", str, where),
        video=f"{need(record, 'video', str, where)}.mp4",
        time=moment(record, "realtime", where),
        prompt=PROMPT.format(question=need(record, "question", str, where), options=listed(options)),
        truth=right_letter(record, options, where),
        kind="choice",
        options=options,
        group=group,
    )
