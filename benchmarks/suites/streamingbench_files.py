"""StreamingBench's question files: finding them, reading them, and writing them back with answers."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.records import LETTERS, Result, Sample, Turn
from streamvlm.benchmarks.suites.reading import need, read_json

PARTS = ("real", "omni", "sqa", "proactive", "proactive_50")
MODEL = "streamvlm"  # the key of our answers in an exported file
SEQUENTIAL = "Sequential Question Answering"
REAL = (
    "Object Recognition",
    "Causal Reasoning",
    "Clips Summarize",
    "Attribute Recognition",
    "Event Understanding",
    "Text-Rich Understanding",
    "Prospective Reasoning",
    "Spatial Understanding",
    "Action Recognition",
    "Counting",
)
OMNI = (
    "Emotion Recognition",
    "Scene Understanding",
    "Source Discrimination",
    "Multimodal Alignment",
    "Misleading Context Understanding",
    "Anomaly Context Understanding",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One question, with its place in the file: (entry, question), for sqa (list, entry, question)."""

    origin: tuple[int, ...]
    video: str
    question: dict[str, Any]


def found(annotations: Path) -> dict[str, Path]:
    """Part -> file, of a folder or of the one file named.

    Raises:
        ValueError: there is none.
    """
    if annotations.is_file():
        return {part_of(annotations): annotations}
    paths = {part: annotations / f"questions_{part}.json" for part in PARTS}
    there = {part: path for part, path in paths.items() if path.is_file()}
    if not there:
        raise ValueError(f"{annotations} holds none of {', '.join(p.name for p in paths.values())}")
    return there


def part_of(path: Path) -> str:
    """Which part a file is, by its name."""
    match = re.search(r"(real|omni|sqa|proactive_50|proactive)", path.stem)
    if match is None:
        raise ValueError(f"{path.name} must be named after its part: {', '.join(f'questions_{p}.json' for p in PARTS)}")
    return match[1]


def read(annotations: Path) -> dict[str, list[Entry]]:
    """Part -> its questions, in order of the file."""
    return {part: list(entries(read_json(path, list), part)) for part, path in found(annotations).items()}


def entries(content: list[Any], part: str) -> Iterator[Entry]:
    """The questions of one file's content."""
    for first, item in enumerate(content):
        for origin, entry in [((first, k), e) for k, e in enumerate(item)] if part == "sqa" else [((first,), item)]:
            where = f"{part}, entry {origin}"
            video = need(entry, "video_path", str, where)
            for last, question in enumerate(need(entry, "questions", list, where)):
                yield Entry((*origin, last), video, question)


def lettered(options: Sequence[str]) -> list[str]:
    """Options with their letters; some files leave them out."""
    whole = all(re.match(r"[A-J]\.", option) for option in options)
    return list(options) if whole else [f"{a}. {o}" for a, o in zip(LETTERS, options, strict=False)]


def last_quoted(question: str) -> str:
    """The last thing in quotation marks; the question itself where nothing is."""
    quoted = re.findall(r'["“]([^"“”]+)["”]', question)
    return quoted[-1] if quoted else question


def condition(question: str) -> str:
    """What a request waits for: "the red light is on" of "When the red light is on, output …"."""
    found = re.match(r"(?:when|once|if|as soon as|after)\s+(.+?),?\s+(?:please\s+)?output\b", question, re.IGNORECASE)
    return found[1].rstrip(" ,") if found else question


def export(annotations: Path, results: Mapping[str, Result], text: Mapping[str, str], out: Path) -> list[Path]:
    """Write the files of `annotations` with answers; entries without any answer stay without."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for part, path in found(annotations).items():
        content = copy.deepcopy(read_json(path, list))
        for entry in entries(content, part):
            key = f"{part}/{'/'.join(map(str, entry.origin))}"
            if key in results:
                proactive = part.startswith("proactive")
                entry.question[MODEL] = _dialog(results[key], entry) if proactive else text[key]
        target = out / f"{path.stem}_{MODEL}.json"
        target.write_text(json.dumps(content, indent=4), encoding="utf-8")
        written.append(target)
    return written


def _dialog(result: Result, entry: Entry) -> dict[str, Any]:
    """A proactive answer. The official script reads the last entry's `time` and fails without one, so that a
    result that never spoke up is written as an empty output at a time that cannot be right."""
    turns = result.turns or (Turn("assistant", "", -1.0),)
    history = [{"role": t.role, "content": t.content, "time": _number(t.time), "cost": 0} for t in turns]
    return {"answered": _number(turns[-1].time) if result.text else False, "dialog_history": history}


def _number(time: float) -> float | int:
    return int(time) if time == int(time) else time


def read_answers(path: Path, samples: Sequence[Sample]) -> dict[str, Result]:
    """The answers in a question file: the one key of its questions that is not the benchmark's."""
    part = part_of(path)
    known = {s.id: s for s in samples}
    results: dict[str, Result] = {}
    for entry in entries(read_json(path, list), part):
        key = f"{part}/{'/'.join(map(str, entry.origin))}"
        if key not in known:
            raise ValueError(f"{path}: there is no sample {key}")
        said = _answer(path, entry.question)
        if said is not None:
            results[key] = _result(key, said)
    return results


_OWN = {
    "task_type", "question", "time_stamp", "answer", "options", "required_ability", "cause", "effect",
    "ground_truth_time_stamp", "ground_truth_output",
}  # fmt: skip


def _answer(path: Path, question: Mapping[str, Any]) -> Any:  # noqa: ANN401
    models = sorted(question.keys() - _OWN)
    if len(models) > 1:
        raise ValueError(f"{path}: answers of several models ({', '.join(models)}); keep one")
    return question[models[0]] if models else None


def _result(key: str, said: Any) -> Result:  # noqa: ANN401
    if isinstance(said, dict):
        history = said.get("dialog_history", [])
        turns = tuple(Turn(t["role"], str(t["content"]), float(t["time"])) for t in history)
        return Result(key, "answered", turns[-1].content if turns else "", turns=turns)
    return Result(key, "answered", str(said))
