"""MAGQA (MMDuet, arXiv 2411.17991): answers that are due whenever the video shows one, judged where they are due.

Schema as of yellow-binary-tree/MMDuet at 33be138, tested on files of our own only. Its score: every gold span has the
mean grade (1 to 5) of what was said within it, 1 if nothing was; an example has the mean of its spans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.judge import Case, Judge, Verdict, number
from streamvlm.benchmarks.core.judged import JudgedBenchmark
from streamvlm.benchmarks.core.protocol import Protocol, live_only
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.suites.reading import need, read_json, write_lines

FIRST = 2000  # examples that its own score looks at
LEAST, MOST = 1, 5  # grades
JUDGE = (
    "Question about a video: {question}\nReference answer: {truth}\nAnswer: {said}\nHow well does the answer match the "
    "reference? Reply with a number from 1 (not at all) to 5 (the same content) and nothing else."
)


class Magqa(JudgedBenchmark):
    """One sample an example: a question at the start, answers as the video goes on."""

    name = "magqa"
    title = "MAGQA"
    home = "https://huggingface.co/datasets/wangyueqian/MMDuetIT (shot2story/annotations/magqa_test.json)"
    average = (
        "mean in-span grade over the first 2,000 examples, 1 to 5 counted as 0 to 100 %; silence is grade 1; the grade "
        "itself is in the extras of a judged score"
    )

    def protocols(self) -> dict[str, Protocol]:
        """A live stream at two frames a second; there is no other way to run it."""
        return live_only()

    def load(self, annotations: Path) -> list[Sample]:
        """Asked when the question is put; watched to the end of the last span."""
        return [_example(record, f"example {k}") for k, record in enumerate(read_json(annotations, list)[:FIRST])]

    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """The mean over the example's spans."""
        spans = [self._span(case, span, judge) for span in json.loads(case.sample.truth)]
        grade = sum(v.points for v in spans) / len(spans)
        return [("in span", Verdict(grade, sum(v.unparsable for v in spans), sum(v.asked for v in spans)))]

    def _span(self, case: Case, span: Mapping[str, Any], judge: Judge) -> Verdict:
        said = [t.content for t in case.result.turns if span["time"][0] <= t.time <= span["time"][1] and t.content]
        if not said or case.result.status != "answered":
            return Verdict(0.0, 0, 0)
        asked = [JUDGE.format(question=case.sample.prompt, truth=span["content"], said=s) for s in said]
        grades = [number(judge(prompt), LEAST, MOST) for prompt in asked]
        points = [((grade or LEAST) - LEAST) / (MOST - LEAST) for grade in grades]
        return Verdict(sum(points) / len(points), grades.count(None), len(grades))

    def summary(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """How much was said, and how much of it more than once."""
        turns = [[t.content for t in results[s.id].turns] for s in samples if s.id in results]
        return {"turns": sum(map(len, turns)), "turns, repetitions left out": sum(len(set(t)) for t in turns)}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """Rows of question_id and model_response_list, as its judging script reads them."""
        rows = [
            {
                "question_id": key,
                "model_response_list": [{"time": t.time, "content": t.content, "role": t.role} for t in r.turns],
                "debug_data": [],
            }
            for key, r in results.items()
        ]
        return [write_lines(out / "magqa.jsonl", rows)]


def _example(record: Mapping[str, Any], where: str) -> Sample:
    asked = next((turn for turn in need(record, "conversation", list, where) if turn.get("content")), None)
    spans = [{"content": a["content"], "time": a["time"]} for a in need(record, "answer", list, where)]
    if asked is None or not spans:
        raise ValueError(f"{where}: needs a question in its conversation and at least one answer")
    time = float(asked.get("time") or 0.0)
    ends = max(float(span["time"][1]) for span in spans)
    due = tuple(sorted(max(0.0, float(span["time"][0])) for span in spans))
    name = record.get("video") or record.get("video_uid") or need(record, "question_id", (str, int), where)
    return Sample(
        id=str(need(record, "question_id", (str, int), where)),
        task="in span",
        video=str(name) if "." in str(name) else f"{name}.mp4",
        time=time,
        prompt=asked["content"],
        truth=json.dumps(spans),
        kind="proactive",
        alert=Alert(due, max(ends, time), condition=f"something new answers this: {asked['content']}", count=None),
    )
