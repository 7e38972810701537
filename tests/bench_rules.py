"""The official scorers' rules, written down a second time and from their description alone, to check ours against."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

OVO = {
    "backward": ["EPM", "ASI", "HLD"],
    "realtime": ["OCR", "ACR", "ATR", "STU", "FPD", "OJR"],
    "forward": ["REC", "SSR", "CRR"],
}


def ovo(folder: Path) -> dict[str, float]:
    """Percentages: by task, by category, in all; every JSON file of the folder counts."""
    points: dict[str, list[bool]] = {}
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        for row in content["backward"] + content["realtime"]:
            said = row["response"]
            points.setdefault(row["task"], []).append(said is not None and row["ground_truth"] in said)
        for row in content["forward"]:
            points.setdefault(row["task"], []).extend(_ovo_point(row["task"], p) for p in row["test_info"])
    found = {task: 100 * sum(right) / len(right) for task, right in points.items()}
    for category, tasks in OVO.items():
        found[category] = sum(found[t] for t in tasks) / len(tasks)
    return found | {"total": sum(found[c] for c in OVO) / 3}


def _ovo_point(task: str, point: dict[str, Any]) -> bool:
    said = point["response"]
    if said is None:
        return False
    if task == "REC":
        return "".join(re.findall(r"\d+", said)) == str(point["count"])
    yes, no = said == "Y" or "Yes" in said, said == "N" or "No" in said
    return (yes and point["type"] == 1) or (no and point["type"] == 0)


def streaming(path: Path, model: str, *, sequential: bool = False) -> dict[str, tuple[int, int]]:
    """Task -> (right, counted); what has no answer is not counted."""
    entries = json.loads(path.read_text())
    found: dict[str, tuple[int, int]] = {}
    for entry in [e for video in entries for e in video] if sequential else entries:
        for question in entry["questions"]:
            if model in question:
                right, counted = found.get(question["task_type"], (0, 0))
                found[question["task_type"]] = (right + (question[model][0] == question["answer"]), counted + 1)
    return found


def proactive(path: Path, model: str) -> tuple[int, int, int]:
    """(right in time, right in time and words, counted)."""
    timed = said = counted = 0
    for entry in json.loads(path.read_text()):
        for question in entry["questions"]:
            if model not in question:
                continue
            counted += 1
            last = question[model]["dialog_history"][-1]
            hours, minutes, seconds = (int(p) for p in question["ground_truth_time_stamp"].split(":"))
            if -2 <= last["time"] - (3600 * hours + 60 * minutes + seconds) <= 2:
                timed += 1
                said += question["ground_truth_output"] in last["content"]
    return timed, said, counted


def streameqa(path: Path, model: str) -> tuple[int, int]:
    """(right, counted) of `streameqa.metrics`: the first character; blanks and missing keys are not counted."""
    said = [(row[model], row["gt"]) for row in json.loads(path.read_text()) if row.get(model)]
    return sum(text[0] == "ABCD"[gt] for text, gt in said), len(said)


def odv(path: Path) -> tuple[int, int]:
    """(right, counted) of VLMEvalKit's ODVBench with exact matching: a bare letter that is an option, or wrong."""
    rows = _table(path)
    options = [{a for a in "ABCD" if row[a]} for row in rows]
    right = sum(r["prediction"] in of and r["prediction"] == r["answer"] for r, of in zip(rows, options, strict=True))
    return right, len(rows)


def ovo_timing(path: Path) -> dict[str, float]:
    """F1 by task of VLMEvalKit's OVO_Timing, made of the mean recall and the mean precision of the task's rows."""
    sides: dict[str, list[tuple[float, float]]] = {}
    for row in _table(path):
        due, left = json.loads(row["gt_timestamp"]), json.loads(row["prediction"])["detections"]
        called = len(left)
        hits = 0
        for moment in due:
            near = [k for k, call in enumerate(left) if abs(call - moment) <= 2]
            if near:
                del left[near[0]]
                hits += 1
        sides.setdefault(row["task"], []).append((hits / len(due), hits / called if called else 0.0))
    found = {}
    for task, pairs in sides.items():
        recall, precision = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        found[task] = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return found


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
