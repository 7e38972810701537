"""OVO-Timing (VideoChat3): OVO-Bench's forward tasks as alerts in a live stream, scored by when they are called out.

A moment is right within two seconds, each moment and each call counts once. As VLMEvalKit's `OVO_Timing` scores it:
recall and precision are means over a task's records (one without a call has precision 0), F1 is made of the two means,
and the score is the mean of the three tasks' F1. Moments: the clue of CRR, two seconds into every repetition of REC and
every step of SSR.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.protocol import Protocol, live_only
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, Mark, Share, f1, macro, percent
from streamvlm.benchmarks.suites.reading import need, read_json, write_table

TOLERANCE = 2.0  # seconds either way
INTO = 2.0  # seconds after the start of a repetition or a step
RECALL, PRECISION = ", recall", ", precision"
CONDITIONS = {
    "REC": "somebody begins to {activity}",
    "SSR": "the next step of the tutorial {tutorial} begins",
    "CRR": "it can now be seen: {question}",
}


class OvoTiming(Benchmark):
    """Annotations are OVO-Bench's; one sample is one record of a forward task."""

    name = "ovotiming"
    title = "OVO-Timing"
    home = "https://huggingface.co/datasets/JoeLeelyf/OVO-Bench (annotations CC BY-NC-SA 4.0)"
    average = "mean of the three tasks' F1, each of its mean recall and mean precision over records"

    def protocols(self) -> dict[str, Protocol]:
        """Two frames a second; there is no other way to run it."""
        return live_only()

    def load(self, annotations: Path) -> list[Sample]:
        """172 records."""
        return [_alert(record, f"record {k}") for k, record in _forward(annotations)]

    def constant(self, sample: Sample) -> Result:
        """Never calls out."""
        return Result(sample.id, "answered")

    def marks(self, sample: Sample, result: Result) -> list[Mark]:
        """The shares of a record's moments that were called out, and of its calls that were right."""
        assert sample.alert is not None
        calls = [t.time for t in result.turns]
        found = matches(sample.alert.due, calls)
        return [
            Mark(OFFICIAL, f"{sample.task}{RECALL}", found / len(sample.alert.due)),
            Mark(OFFICIAL, f"{sample.task}{PRECISION}", found / len(calls) if calls else 0.0),
        ]

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """F1 of each task, and their mean."""
        found = {task: _harmonic(tasks, task) for task in CONDITIONS if f"{task}{RECALL}" in tasks}
        return {f"{task} F1": value for task, value in found.items()} | {"mean F1": macro(found.values())}

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """The same with all moments and calls of a task counted together, so that silence costs no precision."""
        tasks = {s.task: [o for o in samples if o.task == s.task] for s in samples}
        return {f"{task} F1, records pooled": percent(_pooled(of, results)) for task, of in tasks.items()}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """The table that VLMEvalKit's `OVO_Timing` evaluates: moments and calls of every forward record."""
        rows = []
        for index, (place, record) in enumerate(_forward(annotations)):
            sample = _alert(record, f"record {place}")
            assert sample.alert is not None
            if sample.id in results:
                calls = {"detections": [t.time for t in results[sample.id].turns]}
                row = {"index": index, "sample_id": record["id"], "task": sample.task, "video": sample.video}
                moments = {"gt_timestamp": json.dumps(sample.alert.due), "prediction": json.dumps(calls)}
                rows.append(row | {"question": sample.alert.condition} | moments)
        return [write_table(out / "streamvlm_OVO_Timing.tsv", rows)]


def matches(due: Sequence[float], called: Sequence[float]) -> int:
    """How many moments are called out in time, greedily in order; each call counts for one moment."""
    left = sorted(called)
    found = 0
    for moment in sorted(due):
        hit = next((c for c in left if abs(c - moment) <= TOLERANCE), None)
        if hit is not None:
            left.remove(hit)
            found += 1
    return found


def _pooled(samples: Sequence[Sample], results: Mapping[str, Result]) -> float:
    hits = moments = calls = 0
    for sample in samples:
        assert sample.alert is not None
        times = [t.time for t in results[sample.id].turns]
        hits += matches(sample.alert.due, times)
        moments, calls = moments + len(sample.alert.due), calls + len(times)
    return f1(hits, moments, calls)


def _harmonic(tasks: Mapping[str, Share], task: str) -> float:
    recall, precision = (tasks[f"{task}{side}"].accuracy or 0.0 for side in (RECALL, PRECISION))
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def _forward(annotations: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = enumerate(read_json(annotations, list))
    return [(place, record) for place, record in rows if record.get("task") in CONDITIONS]


def _alert(record: Mapping[str, Any], where: str) -> Sample:
    task = record["task"]
    if task == "CRR":
        due, start = [float(need(record, "clue_time", (int, float), where))], float(record.get("ask_time") or 0)
    else:
        key = "start_times" if task == "REC" else "start_time"
        due, start = [float(t) + INTO for t in need(record, key, list, where)], 0.0
    fields = {k: record.get(k, "") for k in ("activity", "tutorial", "question")}
    condition = CONDITIONS[task].format(**fields)
    until = max(min(due), float(need(record, "test_info", list, where)[-1]["realtime"]))  # where its own run ends
    return Sample(
        id=f"{task}/{record['id']}",
        task=task,
        video=need(record, "video", str, where),
        time=min(start, min(due)),
        prompt="",
        truth="",
        kind="proactive",
        alert=Alert(tuple(sorted(due)), until, condition=condition, count=1 if task == "CRR" else None),
    )
