"""A language model as judge, behind any OpenAI-compatible server. What it says is kept: no call is paid twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm import StreamVLMError
from streamvlm.benchmarks.core.records import Result, Sample

Judge = Callable[[str], str]  # prompt -> reply
TRIES = 3
PAIR = (
    "Two comments on the same stretch of a video are to be compared with a reference. Which one is closer to the "
    "reference in content and wording?\n\nReference:\n{reference}\n\nComment A:\n{a}\n\nComment B:\n{b}\n\n"
    "Reply with A or B and nothing else."
)


class JudgeError(StreamVLMError):
    """The judge could not be asked."""


@dataclass(frozen=True, slots=True)
class Server:
    """An OpenAI-compatible server; the key, if it wants one, is in the environment variable OPENAI_API_KEY."""

    url: str  # up to and including /v1
    model: str
    timeout: float = 120.0  # seconds
    seed: int = 42

    def __call__(self, prompt: str) -> str:
        """One reply at temperature 0.

        Raises:
            JudgeError: it did not answer three times in a row.
        """
        body = {"model": self.model, "temperature": 0, "seed": self.seed, "max_tokens": 512}
        message = json.dumps(body | {"messages": [{"role": "user", "content": prompt}]}).encode()
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", message, headers)
        problem: Exception | None = None
        for _ in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return str(json.load(response)["choices"][0]["message"]["content"] or "")
            except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
                problem = error
        raise JudgeError(f"{self.url}, model {self.model}, did not judge: {problem}")


class Kept:
    """A judge whose replies are kept in a file, by the hash of the prompt."""

    def __init__(self, judge: Judge, path: Path) -> None:
        self._judge = judge
        self._path = path
        self._said: dict[str, str] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").split("\n"):
                if line.endswith("}"):  # a kill may have cut the last one short
                    row = json.loads(line)
                    self._said[row["prompt_sha256"]] = row["reply"]

    def __call__(self, prompt: str) -> str:
        key = hashlib.sha256(prompt.encode()).hexdigest()
        if key not in self._said:
            self._said[key] = self._judge(prompt)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"prompt_sha256": key, "reply": self._said[key]}))
        return self._said[key]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge made of one thing."""

    points: float  # 0 to 1
    unparsable: int = 0  # replies that said nothing that counts; they earn nothing
    asked: int = 1
    first: int = 0  # of a comparison: how often what stood first was preferred


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a judge is to be asked about one sample."""

    sample: Sample
    result: Result
    rival: Result | None = None


def prefer(judge: Judge, reference: str, ours: str, theirs: str) -> Verdict:
    """Which of two is preferred, in both orders; a reply that is neither A nor B counts against us."""
    straight = first_letter(judge(PAIR.format(reference=reference, a=ours, b=theirs)))
    swapped = first_letter(judge(PAIR.format(reference=reference, a=theirs, b=ours)))
    wins = (straight == "A") + (swapped == "B")
    return Verdict(wins / 2, (straight is None) + (swapped is None), 2, (straight == "A") + (swapped == "A"))


def first_letter(reply: str) -> str | None:
    """A or B, as the first word of a reply; None for anything else."""
    found = re.match(r"\W*(?:comment\s+)?([AB])\b", reply, re.IGNORECASE)
    return found[1].upper() if found else None


def number(reply: str, low: int, high: int, label: str = "") -> int | None:
    """The number after `label`, or the first one, if it is in [low, high]; None for anything else."""
    found = re.search(rf"{label}\D*?(-?\d+)", reply, re.DOTALL | re.IGNORECASE)
    value = int(found[1]) if found else None
    return value if value is not None and low <= value <= high else None


def bias(verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
    """How sure the judge was of itself."""
    total: Counter[str] = Counter()
    for verdict in verdicts:
        total.update(asked=verdict.asked, unparsable=verdict.unparsable, first=verdict.first)
    found: dict[str, Any] = {"judgements": total["asked"], "unparsable": total["unparsable"]}
    return found | ({"preferred what stood first": total["first"]} if total["first"] else {})
