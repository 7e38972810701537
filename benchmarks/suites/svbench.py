"""SVBench (arXiv 2502.10810): chains of questions about one video, judged on six aspects.

Schema as of yzy-bupt/SVBench at cab1d1c. Its released scorer cannot be run; ours asks for the same six scores, and is
not official. An aspect that does not apply is said by -1 and left out, which the released script reads as 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamvlm.benchmarks.core.judge import Case, Judge, Verdict, number
from streamvlm.benchmarks.core.judged import JudgedBenchmark
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import Result, Sample
from streamvlm.benchmarks.core.scores import Share
from streamvlm.benchmarks.suites.reading import moment, read_json

ASPECTS = (
    "Semantic Accuracy",
    "Contextual Coherence",
    "Logical Consistency",
    "Temporal Understanding",
    "Informational Completeness",
    "Overall",
)
HISTORY = "Earlier in this conversation:\n{turns}\n\n"
JUDGE = (
    "An answer to a question about a streaming video is to be graded against the right answer.\n{history}"
    "Question: {question}\nRight answer: {truth}\nGiven answer: {said}\n\nGrade each of these from 0 to 10, one line "
    "each in the form `Name: number`; for Temporal Understanding write -1 if the question is not about time:\n"
    "{aspects}"
)


class SvBench(JudgedBenchmark):
    """Annotations are a folder with one file a video: a list of chains, each asked at the end of its segment."""

    name = "svbench"
    title = "SVBench, dialogue"
    home = "https://huggingface.co/datasets/yzy666/SVBench (Apache-2.0)"
    average = "mean of the judge's Overall scores, 0 to 10, in percent; the other aspects beside it"

    def protocols(self) -> dict[str, Protocol]:
        """Official: everything up to the end of the segment, one frame a second."""
        return protocols(Protocol("official", "clip"), STREAM)

    def load(self, annotations: Path) -> list[Sample]:
        """Each question with the true answers of the chain's earlier ones before it."""
        samples: list[Sample] = []
        for path in sorted(annotations.glob("*.json")) if annotations.is_dir() else [annotations]:
            for number_, scene in enumerate(read_json(path, list)):
                if scene:  # a scene whose chain could not be made is an empty record
                    samples += _chain(scene, path.stem, f"{path.stem}/{number_}")
        return samples

    def verdicts(self, case: Case, judge: Judge) -> list[tuple[str, Verdict]]:
        """A tenth of each grade. An aspect that does not apply is not counted."""
        if case.result.status != "answered":
            return [(aspect, Verdict(0.0, 0, 0)) for aspect in ASPECTS]
        sample = case.sample
        history, _, question = sample.prompt.rpartition("\n\n")
        reply = judge(
            JUDGE.format(
                history=f"{history}\n" if history else "", question=question, truth=sample.truth,
                said=case.result.text, aspects="\n".join(ASPECTS),
            )
        )  # fmt: skip
        found = []
        for aspect in ASPECTS:
            grade = number(reply, -1, 10, aspect)
            if grade != -1:
                found.append((aspect, Verdict((grade or 0) / 10, int(grade is None))))
        return found

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """Overall."""
        return {"total": tasks["Overall"].accuracy if "Overall" in tasks else None}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """A file a video: per chain its questions, the right answers and ours, as the released scripts read them."""
        rows: dict[str, dict[str, dict[str, list[str]]]] = {}
        for sample in self.load(annotations):
            video, chain, _ = sample.id.rsplit("/", 2)
            if sample.id in results:
                row = rows.setdefault(video, {}).setdefault(chain, {"questions": [], "gt_answers": [], "answers": []})
                row["questions"].append(sample.prompt.rpartition("\n\n")[2])
                row["gt_answers"].append(sample.truth)
                row["answers"].append(results[sample.id].text)
        out.mkdir(parents=True, exist_ok=True)
        for video, chains in rows.items():
            (out / f"{video}.json").write_text(json.dumps(list(chains.values()), indent=4), encoding="utf-8")
        return [out / f"{video}.json" for video in rows]


def _chain(scene: Mapping[str, Any], video: str, where: str) -> list[Sample]:
    time = moment(scene, "qac_timestamps_end", where)
    samples: list[Sample] = []
    turns: list[str] = []
    for index, (question, answer) in enumerate(pairs(scene.get("chain"), where)):
        before = HISTORY.format(turns="\n".join(turns)) if turns else ""
        samples.append(Sample(f"{where}/{index}", "dialogue", f"{video}.mp4", time, before + question, answer, "open"))
        turns.append(f"{question} {answer}")
    return samples


def pairs(chain: Any, where: str) -> list[tuple[str, str]]:  # noqa: ANN401
    """(question, answer) of a chain: a list of records, or one record with numbered keys such as Q1 and A1.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(chain, list):
        return [(_value(turn, "q", where), _value(turn, "a", where)) for turn in chain]
    if isinstance(chain, dict):
        numbers = dict.fromkeys(re.sub(r"\D", "", key) for key in chain)
        turns = [{k: v for k, v in chain.items() if re.sub(r"\D", "", k) == n} for n in numbers]
        return [(_value(turn, "q", where), _value(turn, "a", where)) for turn in turns]
    raise ValueError(f"{where}: 'chain' must be a list or an object of questions and answers, got {chain!r}")


def _value(turn: Mapping[str, Any], initial: str, where: str) -> str:
    found = [v for k, v in turn.items() if k.lower().startswith(initial)]
    if len(found) != 1 or not isinstance(found[0], str):
        raise ValueError(f"{where}: a turn needs one question and one answer, got the keys {sorted(turn)}")
    return found[0]
