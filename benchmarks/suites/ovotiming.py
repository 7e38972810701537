"""OVO-Timing (VideoChat3): OVO-Bench's forward tasks as alerts in a live stream, scored by when they are called out.

A moment is right within two seconds, each moment and each call counts once; the score is F1 per task, and the mean of
the three. Moments: the clue of CRR, two seconds into every repetition of REC and every step of SSR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.protocol import Protocol, live_only
from streamvlm.benchmarks.core.records import Alert, Result, Sample
from streamvlm.benchmarks.core.scores import OFFICIAL, Mark, Share, f1, macro, percent
from streamvlm.benchmarks.suites.reading import need, read_json

TOLERANCE = 2.0  # seconds either way
INTO = 2.0  # seconds after the start of a repetition or a step
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
    average = (
        "total: the mean of the three tasks' F1 (in the extras); a cell is the share of moments called out in time"
    )

    def protocols(self) -> dict[str, Protocol]:
        """Two frames a second; there is no other way to run it."""
        return live_only()

    def load(self, annotations: Path) -> list[Sample]:
        """172 records."""
        rows = enumerate(read_json(annotations, list))
        return [_alert(record, f"record {k}") for k, record in rows if record.get("task") in CONDITIONS]

    def constant(self, sample: Sample) -> Result:
        """Never calls out."""
        return Result(sample.id, "answered")

    def marks(self, sample: Sample, result: Result) -> list[Mark]:
        """The share of a record's moments that were called out."""
        assert sample.alert is not None
        found = matches(sample.alert.due, [t.time for t in result.turns])
        return [Mark(OFFICIAL, sample.task, found / len(sample.alert.due))]

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """The mean share of moments; F1 is among the extras."""
        return {"mean recall": macro(share.accuracy for share in tasks.values())}

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """F1 of each task, over all of its moments and calls, and their mean."""
        found = {
            f"{task} F1": percent(_f1([s for s in samples if s.task == task], results))
            for task in CONDITIONS
            if any(s.task == task for s in samples)
        }
        return found | {"mean F1": round(sum(v or 0.0 for v in found.values()) / len(found), 2)} if found else {}


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


def _f1(samples: Sequence[Sample], results: Mapping[str, Result]) -> float:
    hits = moments = calls = 0
    for sample in samples:
        assert sample.alert is not None
        times = [t.time for t in results[sample.id].turns]
        hits += matches(sample.alert.due, times)
        moments, calls = moments + len(sample.alert.due), calls + len(times)
    return f1(hits, moments, calls)


def _alert(record: Mapping[str, Any], where: str) -> Sample:
    task = record["task"]
    if task == "CRR":
        due, start = [float(need(record, "clue_time", (int, float), where))], float(record.get("ask_time") or 0)
    else:
        key = "start_times" if task == "REC" else "start_time"
        due, start = [float(t) + INTO for t in need(record, key, list, where)], 0.0
    fields = {k: record.get(k, "") for k in ("activity", "tutorial", "question")}
    condition = CONDITIONS[task].format(**fields)
    until = max(*due, *(float(p["realtime"]) for p in record["test_info"])) + TOLERANCE
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
