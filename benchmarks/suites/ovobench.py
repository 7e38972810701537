"""OVO-Bench (arXiv 2501.05510): twelve tasks about the past, the present and what is still to come.

Schema, protocol and score as of its repository JoeLeelyf/OVO-Bench at c34093f; the prompts are our own words for the
same request and ask for the same form of answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import LETTERS, Kind, Result, Sample
from streamvlm.benchmarks.core.scores import Share, macro, micro
from streamvlm.benchmarks.suites.reading import listed, need, read_json, right_letter

CATEGORIES = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
CATEGORY = {task: name for name, tasks in CATEGORIES.items() for task in tasks}
FOLDER = "MiniCPM_o"  # a name the official script accepts
KINDS: dict[str, Kind] = {"REC": "number", "SSR": "yesno", "CRR": "yesno"}

CHOICE = "Question: {question}\nOptions: {options}\nReply with the letter of the right option and nothing else."
COUNT = (
    "The video shows people who repeat an action; carrying it out once in full counts as one. "
    "How many times did they {activity}? Reply with a single number in digits and nothing else."
)
STEP = (
    "The video is a tutorial on {tutorial}, which is done in steps. One of its steps is: {step}\n"
    "Is the person carrying out this step right now? A step that is already over does not count. "
    "Reply with Yes or No and nothing else."
)
CLUE = (
    "Somebody wants to know about this video: {question}\n"
    "Is what has been shown so far, the newest pictures above all, enough to answer that? Do not answer it. "
    "Reply with Yes or No and nothing else."
)


class OvoBench(Benchmark):
    """Every test point is a question of its own, asked of everything up to the end of its second."""

    name = "ovobench"
    title = "OVO-Bench"
    home = "https://huggingface.co/datasets/JoeLeelyf/OVO-Bench (annotations CC BY-NC-SA 4.0)"
    average = (
        "total: the mean of the three categories, each the unweighted mean of its tasks' accuracies over test points "
        "(v2 of the official script)"
    )

    def protocols(self) -> dict[str, Protocol]:
        """Official: the whole prefix, 64 frames spread over it."""
        return protocols(
            Protocol("official", "clip", frames=64, whole_seconds=True),
            replace(STREAM, whole_seconds=True),
        )

    def load(self, annotations: Path) -> list[Sample]:
        """1,640 records, 3,035 test points."""
        samples: list[Sample] = []
        for number, record in enumerate(read_json(annotations, list)):
            task = need(record, "task", str, f"record {number}")
            if task not in CATEGORY:
                raise ValueError(f"{annotations}: record {number}: task {task!r} is not one of {', '.join(CATEGORY)}")
            samples += _points(record, number) if task in KINDS else [_question(record, number)]
        return samples

    def correct(self, sample: Sample, text: str) -> bool:
        """As the official script: a substring, all digits run together, or one of the two words."""
        match sample.kind:
            case "choice":
                return sample.truth in text
            case "number":
                return "".join(c for c in text if c.isdigit()) == sample.truth
            case _:
                return text == sample.truth[0] or sample.truth in text

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """B, R, F and their mean; the micro average too, which others report."""
        found = {
            name: macro(tasks[t].accuracy for t in names if t in tasks) if any(t in tasks for t in names) else None
            for name, names in CATEGORIES.items()
        }
        return {**found, "total": macro(found.values()), "micro over points": micro(tasks.values())}

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """Balanced accuracy of the Yes/No tasks, where a constant has 50 %."""
        found: dict[str, Any] = {}
        for task in ("SSR", "CRR"):
            sides = []
            for truth in ("Yes", "No"):
                asked = [s for s in samples if s.task == task and s.truth == truth]
                sides.append(micro(Share(self.correct(s, self.normalised(s, results[s.id])), 1) for s in asked))
            balanced = macro(sides)
            if balanced is not None:
                found[f"{task} balanced accuracy"] = round(100 * balanced, 2)
        return found

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """One file, in a folder whose name the official script takes for a model's."""
        records = read_json(annotations, list)
        samples = {s.id: s for s in self.load(annotations)}
        text = {i: self.normalised(samples[i], r) for i, r in results.items()}
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in CATEGORIES}
        for record in records:
            row = _row(record, text)
            if row is not None:
                rows[CATEGORY[record["task"]]].append(row)
        path = out / FOLDER / f"{FOLDER}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
        return [path]

    def read_answers(self, path: Path, samples: Sequence[Sample]) -> dict[str, Result]:
        """A file of the official result format, one `response` a row or test point."""
        found: dict[str, Result] = {}
        rows = read_json(path, dict)
        for name in CATEGORIES:
            for row in rows.get(name, []):
                responses = _responses(row)
                twice = sorted(responses.keys() & found.keys())
                if twice:
                    raise ValueError(f"{path}: {twice[0]} is answered twice; the official script would count both")
                for key, text in responses.items():
                    said = Result(key, "failed", note="no response") if text is None else None
                    found[key] = said or Result(key, "answered", str(text))
        return found


def _question(record: dict[str, Any], number: int) -> Sample:
    where = f"record {number}"
    options = tuple(map(str, need(record, "options", list, where)))
    return Sample(
        id=f"{record['task']}/{record['id']}",
        task=record["task"],
        video=need(record, "video", str, where),
        time=float(need(record, "realtime", (int, float), where)),
        prompt=CHOICE.format(question=need(record, "question", str, where).strip(), options=listed(options, "; ")),
        truth=right_letter(record, options, where),
        kind="choice",
        options=options,
        origin=(number,),
        group=CATEGORY[record["task"]],
    )


def _points(record: dict[str, Any], number: int) -> list[Sample]:
    where, task = f"record {number}", record["task"]
    samples = []
    for index, point in enumerate(need(record, "test_info", list, where)):
        place = f"{where}, test point {index}"
        truth = str(need(point, "count", int, place)) if task == "REC" else _word(need(point, "type", int, place))
        samples.append(
            Sample(
                id=f"{task}/{record['id']}/{index}",
                task=task,
                video=need(record, "video", str, where),
                time=float(need(point, "realtime", (int, float), place)),
                prompt=_forward_prompt(record, point, place),
                truth=truth,
                kind=KINDS[task],
                origin=(number, index),
                group="forward",
            )
        )
    return samples


def _forward_prompt(record: dict[str, Any], point: dict[str, Any], place: str) -> str:
    match record["task"]:
        case "REC":
            return COUNT.format(activity=need(record, "activity", str, place))
        case "SSR":
            return STEP.format(tutorial=need(record, "tutorial", str, place), step=need(point, "step", str, place))
        case _:
            return CLUE.format(question=need(record, "question", str, place).strip())


def _word(kind: int) -> str:
    return "Yes" if kind == 1 else "No"


def _row(record: dict[str, Any], text: Mapping[str, str]) -> dict[str, Any] | None:
    """A record as the official script reads it; None for one that has no result at all."""
    key = f"{record['task']}/{record['id']}"
    if record["task"] not in KINDS:
        if key not in text:
            return None
        kept = {k: record[k] for k in ("id", "video", "task", "question")}
        return kept | {"response": text[key], "ground_truth": LETTERS[record["gt"]]}
    points = [
        point | {"response": text[f"{key}/{index}"]}
        for index, point in enumerate(record["test_info"])
        if f"{key}/{index}" in text
    ]
    return record | {"test_info": points} if points else None


def _responses(row: dict[str, Any]) -> dict[str, Any]:
    """Sample id -> response of one row."""
    key = f"{row['task']}/{row['id']}"
    if row["task"] not in KINDS:
        return {key: row.get("response")}
    return {f"{key}/{index}": point.get("response") for index, point in enumerate(row["test_info"])}
