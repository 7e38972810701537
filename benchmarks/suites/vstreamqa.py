"""VStream-QA and its streaming repack RVS (Flash-VStream, arXiv 2406.08085): open answers, judged yes or no.

The published judge (GPT-3.5) is retired, so that no score made today is comparable with the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.judge import Case, Judge, Verdict, number
from streamvlm.benchmarks.core.judged import JudgedBenchmark
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.suites.reading import need, read_lines, write_lines

JUDGE = (
    "Question about a video: {question}\nRight answer: {truth}\nGiven answer: {said}\n"
    "Does the given answer mean the same as the right one? Reply in the form `yes 5`: yes or no, then how well they "
    "match, from 0 to 5."
)


class VStreamQa(JudgedBenchmark):
    """Annotations are Flash-VStream's records, or RVS's conversations."""

    name = "vstreamqa"
    title = "VStream-QA / RVS"
    home = "https://huggingface.co/datasets/IVGSZ/VStream-QA (CC-BY-NC-4.0), Becomebright/RVS"
    average = "share of all questions judged yes; unparsable replies count as no"

    def protocols(self) -> dict[str, Protocol]:
        """Official: everything up to the question, one frame in two seconds."""
        return protocols(Protocol("official", "clip", fps=0.5), STREAM)

    def load(self, annotations: Path) -> list[Sample]:
        """Questions of both forms."""
        samples: list[Sample] = []
        for row, record in enumerate(read_lines(annotations)):
            if "conversations" in record:
                samples += [_turn(record, k, f"{row}/{k}") for k in range(len(record["conversations"]))]
            else:
                samples.append(_record(record, str(row)))
        return samples

    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """Yes earns a point."""
        sample = case.sample
        if case.result.status != "answered":
            return [(sample.task, Verdict(0.0, 0, 0))]
        reply = judge(JUDGE.format(question=sample.prompt, truth=sample.truth, said=case.result.text))
        said = re.search(r"\b(yes|no)\b", reply.lower())
        clear = said is not None and number(reply, 0, 5) is not None
        return [(sample.task, Verdict(float(clear and said is not None and said[1] == "yes"), int(not clear)))]

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """Rows of id, question, answer, answer_type and pred."""
        rows = [
            {"id": s.id, "question": s.prompt, "answer": s.truth, "answer_type": s.task, "pred": results[s.id].text}
            for s in self.load(annotations)
            if s.id in results
        ]
        return [write_lines(out / "vstreamqa.jsonl", rows)]


def _record(record: Mapping[str, Any], key: str) -> Sample:
    return Sample(
        id=key,
        task=str(record.get("answer_type", "open")),
        video=f"{need(record, 'video_id', str, key)}.mp4",
        time=float(need(record, "duration", (int, float), key)),
        prompt=need(record, "question", str, key),
        truth=need(record, "answer", str, key),
        kind="open",
    )


def _turn(record: Mapping[str, Any], index: int, key: str) -> Sample:
    turn = record["conversations"][index]
    return Sample(
        id=key,
        task=str(turn.get("answer_type", "open")),
        video=Path(need(record, "video_path", str, key)).name,
        time=float(need(turn, "end_time", (int, float), key)),
        prompt=need(turn, "question", str, key),
        truth=need(turn, "answer", str, key),
        kind="open",
    )
