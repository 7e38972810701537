"""StreamingBench (arXiv 2411.03628): real-time, omni-source, contextual and proactive understanding.

Schema, protocol and score as of its repository THUNLP-MT/StreamingBench at 8929923 (the JSON files, which differ
from the CSV files on the hub); the prompts are our own words for the same request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from streamvlm.benchmarks.core.benchmark import Benchmark
from streamvlm.benchmarks.core.normalise import bare
from streamvlm.benchmarks.core.protocol import STREAM, Protocol, protocols
from streamvlm.benchmarks.core.records import LETTERS, Alert, Result, Sample, Turn
from streamvlm.benchmarks.core.scores import OFFICIAL, RAW, STRICT, Mark, Share, micro
from streamvlm.benchmarks.suites import streamingbench_files as files
from streamvlm.benchmarks.suites.reading import need, seconds

CONTEXT = ("Misleading Context Understanding", "Anomaly Context Understanding")
TOLERANCE = 2.0  # seconds that a proactive output may be early or late
HORIZON = 4  # seconds past the right moment at which official polling stops
BLIND_DELAY = 7.0  # seconds after the request: the best guess of somebody who does not look
TIME, ANSWER = "Proactive Output, time", "Proactive Output, answer"
FEW, MANY = " (51)", " (250)"

CHOICE = (
    "You are an expert at answering questions about videos. You are shown pictures from a video. Choose the best of "
    "the options and reply with its letter and nothing else.\n"
    "{context}Question: {question}\nOptions:\n{options}\nThe best option is:"
)
HISTORY = "These questions were asked about the video before, with their answers:\n{turns}\n"
TURN = "At timestamp {time} Question: {question}; Options: {options}; Answer: {answer};"
POLL = '{question} Is it the right time to output "{output}"? Reply with yes or no.'


class StreamingBench(Benchmark):
    """Annotations are the repository's folder of question files, or one of them."""

    name = "streamingbench"
    title = "StreamingBench"
    home = "https://huggingface.co/datasets/mjuicem/StreamingBench (videos), THUNLP-MT/StreamingBench (question files)"
    average: ClassVar[str] = (
        "all micro: realtime over 2,500 questions, omni over 1,000, context over 801 (two omni tasks, sequential, and "
        "the time accuracy of the 51 proactive ones), overall over those 4,301"
    )

    def protocols(self) -> dict[str, Protocol]:
        """Official: the last 60 s at one frame a second, as in the paper's main table."""
        slower = ((300.0, 0.5), (600.0, 0.2))
        found = protocols(
            Protocol("official", "clip", context=60.0, polls=True, audio=True),
            replace(STREAM, audio=True),
        )
        whole = replace(found["official"], name="all-context", context=None, slower=slower)
        return {"official": found["official"], whole.name: whole} | found

    def load(self, annotations: Path) -> list[Sample]:
        """4,500 questions and, of the proactive ones, the 51 of the paper's table once more."""
        return [s for part, entries in files.read(annotations).items() for s in _part(part, entries)]

    def constant(self, sample: Sample) -> Result:
        """Always A; never speaks up."""
        return Result(sample.id, "answered", "A" if sample.kind == "choice" else "")

    def blind(self, sample: Sample) -> Result:
        """Always A; speaks up seven seconds after the request and says the last thing quoted in it."""
        if sample.kind == "choice":
            return self.constant(sample)
        text = files.last_quoted(sample.prompt)
        return Result(sample.id, "answered", text, turns=(Turn("assistant", text, sample.time + BLIND_DELAY),))

    def normalised(self, sample: Sample, result: Result) -> str:
        """A letter; what a proactive sample said stays as it is."""
        return result.text if sample.kind == "proactive" else super().normalised(sample, result)

    def correct(self, sample: Sample, text: str) -> bool:
        """As the official script: the first character."""
        return text[:1] == sample.truth

    def marks(self, sample: Sample, result: Result) -> list[Mark]:
        """Proactive: the time of the last turn, and whether it holds the expected words; strictly, of the first."""
        if sample.alert is None:
            return super().marks(sample, result)
        part = FEW if sample.group == "proactive_50" else MANY
        spoken = [t for t in result.turns if t.role == "assistant"]
        marks = []
        for rule, said in ((OFFICIAL, result.turns[-1:]), (RAW, result.turns[-1:]), (STRICT, _fired(spoken))):
            in_time = any(abs(turn.time - sample.alert.due[0]) <= TOLERANCE for turn in said)
            held = in_time and any(_holds(rule, turn.content, sample.truth) for turn in said)
            marks += [Mark(rule, TIME + part, float(in_time)), Mark(rule, ANSWER + part, float(held))]
        return marks

    def totals(self, tasks: Mapping[str, Share]) -> dict[str, float | None]:
        """The rows of the paper's table."""
        omni = [s for t, s in tasks.items() if t in files.OMNI and t not in CONTEXT]
        context = [tasks[t] for t in (*CONTEXT, files.SEQUENTIAL, TIME + FEW) if t in tasks]
        real = [s for t, s in tasks.items() if t in files.REAL]
        return {
            "realtime": micro(real),
            "omni": micro(omni),
            "context": micro(context),
            "overall": micro([*real, *omni, *context]) if real and omni and context else None,
        }

    def extras(self, samples: Sequence[Sample], results: Mapping[str, Result]) -> dict[str, Any]:
        """What the official script leaves out of its denominators: nothing of ours, so say how many it could."""
        silent = sum(not results[s.id].turns for s in samples if s.kind == "proactive")
        return {"proactive samples that were never spoken to": silent} if silent else {}

    def export(self, annotations: Path, results: Mapping[str, Result], out: Path) -> list[Path]:
        """Each question file with our answers in it, under the name `streamvlm`."""
        samples = {s.id: s for s in self.load(annotations)}
        text = {i: self.normalised(samples[i], r) for i, r in results.items()}
        return files.export(annotations, results, text, out)

    def read_answers(self, path: Path, samples: Sequence[Sample]) -> dict[str, Result]:
        """A question file with a model's answers in it."""
        return files.read_answers(path, samples)


def _fired(spoken: Sequence[Turn]) -> Sequence[Turn]:
    """The output that answers the first poll that was agreed to; of a run that polls nothing, the first output."""
    agreed = next((k for k, turn in enumerate(spoken[:-1]) if "yes" in turn.content.lower()), -1)
    return spoken[agreed + 1 : agreed + 2]


def _holds(rule: str, said: str, output: str) -> bool:
    return bare(said) == output if rule == STRICT else output in said


def _part(part: str, entries: Sequence[files.Entry]) -> list[Sample]:
    samples: list[Sample] = []
    history: dict[str, list[str]] = {}
    for entry in entries:
        key, where = f"{part}/{'/'.join(map(str, entry.origin))}", f"{part}, entry {entry.origin}"
        if part.startswith("proactive"):
            samples.append(_proactive(part, key, entry, where))
            continue
        turns = history.setdefault(entry.video, []) if part == "sqa" else []
        samples.append(_choice(part, key, entry, turns, where))
        if part == "sqa":
            turns.append(_turn(entry.question, where))
    return samples


def _common(part: str, key: str, entry: files.Entry, where: str) -> dict[str, Any]:
    question = entry.question
    return {
        "id": key,
        "task": need(question, "task_type", str, where),
        "video": Path(entry.video).name,
        "time": seconds(need(question, "time_stamp", str, where), where),
        "origin": entry.origin,
        "group": part,
    }


def _choice(part: str, key: str, entry: files.Entry, turns: Sequence[str], where: str) -> Sample:
    # The official prompt shows four options; what comma splits added to some lists is dropped there too.
    options = tuple(files.lettered(need(entry.question, "options", list, where)))[:4]
    context = HISTORY.format(turns="\n".join(turns)) if turns else ""
    prompt = CHOICE.format(
        context=context, question=need(entry.question, "question", str, where), options="\n".join(options)
    )
    answer = need(entry.question, "answer", str, where)
    if answer not in LETTERS[: len(options)]:
        raise ValueError(f"{where}: the answer is {answer!r}, and there are {len(options)} options")
    return Sample(prompt=prompt, truth=answer, kind="choice", options=options, **_common(part, key, entry, where))


def _turn(question: Mapping[str, Any], where: str) -> str:
    return TURN.format(
        time=need(question, "time_stamp", str, where),
        question=question["question"],
        options=" ".join(files.lettered(question["options"])),
        answer=question["answer"],
    )


def _proactive(part: str, key: str, entry: files.Entry, where: str) -> Sample:
    question = entry.question
    output = need(question, "ground_truth_output", str, where)
    due = seconds(need(question, "ground_truth_time_stamp", str, where), where)
    asked = need(question, "question", str, where)
    alert = Alert((due,), due + HORIZON, POLL.format(question=asked, output=output), files.condition(asked))
    return Sample(prompt=asked, truth=output, kind="proactive", alert=alert, **_common(part, key, entry, where))
