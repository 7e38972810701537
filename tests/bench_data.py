"""Small annotation files in the official schemas, made up here, and where the real ones lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "BENCH_DATA"  # no STREAMVLM_ before it: that would be a setting


def real_file(*parts: str) -> Path:
    """A real annotation file or folder; skips the test where it is not."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"set {VARIABLE} to the folder with ovobench/ and streamingbench/ to test on the real annotations")
    path = Path(root, *parts)
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _asked(number: int, task: str, time: float, right: int, *options: str) -> dict[str, Any]:
    return {
        "id": number,
        "task": task,
        "video": "some/a.mp4" if number % 2 else "b.mp4",
        "realtime": time,
        "question": f"what is number {number}?",
        "answer": "as annotated",
        "options": list(options),
        "gt": right,
    }


def ovo(path: Path) -> Path:
    """Every task once, the forward ones with two points; options from two to five."""
    rows = [
        _asked(0, "EPM", 3.2, 1, "red", "blue", "green", "none", "Unable to answer"),
        _asked(1, "ASI", 5, 0, "one", "two", "three"),
        _asked(2, "HLD", 6.5, 3, "a", "b", "c", "Unable to answer"),
        *(_asked(3 + k, t, 2.0 + k, k % 2, "yes", "no") for k, t in enumerate(("OCR", "ACR", "ATR", "STU", "FPD"))),
        _asked(8, "OJR", 0.03, 2, "w", "x", "y", "z"),
        {
            "id": 9, "task": "REC", "video": "b.mp4", "activity": "wave", "start_times": [1], "end_times": [2, 10],
            "test_info": [{"realtime": 3.5, "count": 1}, {"realtime": 11, "count": 12}],
        },
        {
            "id": 10, "task": "SSR", "video": "some/a.mp4", "tutorial": "Cook", "all_steps": ["stir"],
            "start_time": [2], "end_time": [4],
            "test_info": [{"realtime": 3, "step": "stir", "type": 1}, {"realtime": 9, "step": "stir", "type": 0}],
        },
        {
            "id": 11, "task": "CRR", "video": "some/a.mp4", "question": "what comes?", "answer": "it comes.",
            "ask_time": 4, "clue_time": 8, "test_info": [{"realtime": 4, "type": 0}, {"realtime": 8.5, "type": 1}],
        },
    ]  # fmt: skip
    return write(path, rows)


def _entry(video: str, task: str, stamp: str, **question: Any) -> dict[str, Any]:
    asked = {"task_type": task, "question": f"what about {task}?", "time_stamp": stamp, **question}
    return {"time": "[0:00:00 - 0:00:10]", "questions": [asked], "video_path": f"./videos/{video}"}


def streaming(folder: Path) -> Path:
    """Every file of StreamingBench, with the oddities of the real ones."""
    four = ["A. red", "B. green", "C. blue", "D. none"]
    real = [
        _entry("a.mp4", "Counting", "00:00:04", answer="C", options=four),
        _entry("a.mp4", "Clips Summarize", "00:07", answer="A", options=four),
        _entry("b.mp4", "Counting", "00:12450", answer="B", options=four),
    ]
    omni = [
        _entry("a.mp4", "Emotion Recognition", "00:00:5", answer="D", options=[*four, "E. more", "F. and more"]),
        _entry("b.mp4", "Misleading Context Understanding", "00:00:09", answer="A", options=four),
    ]
    bare = ["red.", "green.", "blue.", "none."]
    task = "Sequential Question Answering"
    sqa = [
        [
            _entry("a.mp4", task, "00:00:03", answer="B", options=bare),
            _entry("a.mp4", task, "00:00:06", answer="D", options=four),
        ],
        [_entry("b.mp4", task, "00:00:08", answer="A", options=bare)],
    ]
    asked = {"ground_truth_time_stamp": "00:00:09", "ground_truth_output": "red", "question": 'At red, output "red".'}
    late = {"ground_truth_time_stamp": "00:00:12", "ground_truth_output": "7", "question": 'At seven, output "7".'}
    few = [_entry("a.mp4", "Proactive Output", "00:00:02", **asked)]
    write(folder / "questions_real.json", real)
    write(folder / "questions_omni.json", omni)
    write(folder / "questions_sqa.json", sqa)
    write(folder / "questions_proactive.json", [*few, _entry("b.mp4", "Proactive Output", "00:00:01", **late)])
    write(folder / "questions_proactive_50.json", few)
    return folder
