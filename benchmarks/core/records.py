"""The records of a run: what is asked, what came back, what it cost."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

Kind = Literal["choice", "number", "yesno", "word", "proactive", "commentary", "narration", "open"]
Status = Literal["answered", "failed", "missing"]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Alert:
    """What a proactive sample waits for, or the stretch of a commentary.

    `poll` gives the expected output away; only official polling uses it.
    """

    due: tuple[float, ...]  # seconds, rising: when something should be said
    until: float  # seconds: when waiting ends
    poll: str = ""  # the yes/no question of the official protocol
    condition: str = ""  # what is watched for; "" for a commentary
    count: int | None = 1  # times it may be called out; None: every time

    def __post_init__(self) -> None:
        if not (self.due and list(self.due) == sorted(self.due) and 0 <= self.due[0] <= self.until < math.inf):
            raise ValueError(f"an alert needs rising 0 <= due <= until, got due={self.due}, until={self.until}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question at one moment of one video."""

    id: str  # unique in its benchmark, and stable
    task: str  # what it is averaged with
    video: str  # name below the folder of videos
    time: float  # seconds; nothing later may be seen
    prompt: str
    truth: str  # letter, integer, Yes/No, word or text; never shown to a model
    kind: Kind
    options: tuple[str, ...] = ()  # texts, in order of their letters
    start: float = 0.0  # seconds; nothing earlier is shown, where the benchmark says so
    alert: Alert | None = None
    origin: tuple[int, ...] = ()  # where it stands in the annotation file
    group: str = ""  # a part of the benchmark, where it has parts
    distance: str = ""  # how far back the needed moment lies, where the benchmark controls it

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time) and 0 <= self.start <= self.time):
            raise ValueError(f"{self.id}: needs 0 <= start <= time, got start={self.start}, time={self.time}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.id}: kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if (self.kind in ("proactive", "commentary", "narration")) != (self.alert is not None):
            raise ValueError(f"{self.id}: a proactive sample, a commentary or a narration, and no other, has an alert")
        if self.kind == "choice" and not 2 <= len(self.options) <= len(LETTERS):
            raise ValueError(f"{self.id}: needs 2 to {len(LETTERS)} options, got {len(self.options)}")

    @property
    def letters(self) -> str:
        """The letters that name its options."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said, or asked by a poll, while a proactive sample was watched."""

    role: str
    content: str
    time: float  # seconds of stream


@dataclass(frozen=True, slots=True)
class Result:
    """What came back for one sample; a failure is one. It holds nothing that differs between equal runs."""

    id: str
    status: Status
    text: str = ""
    as_of: float | None = None  # seconds: the newest frame it was based on
    turns: tuple[Turn, ...] = ()  # of a proactive sample, in order; () when nothing was said
    note: str = ""  # why it failed, or what was odd

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"{self.id}: status must be one of {', '.join(get_args(Status))}, got {self.status!r}")

    def line(self) -> str:
        """One line of JSON, the same for equal results."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """What `line` wrote.

        Raises:
            ValueError: the line is no result.
        """
        found = _record(line, cls)
        turns = tuple(Turn(**turn) for turn in found.pop("turns", ()))
        return cls(**found, turns=turns)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one sample took. Kept apart from its result, which must not depend on the clock."""

    id: str
    seconds: float  # wall clock, watching included
    frames: int = 0  # perceived for it
    tokens_in: int = 0  # rows of vision and text prefilled for it
    tokens_out: int = 0
    ttft_s: float | None = None  # from its question to its first token
    rows_thought: int = 0  # computed meanwhile for watches, narration and notes
    rows_asked: int = 0  # computed of the question, and of the notes shown with it
    rows_recalled: int = 0  # brought back from disk for it, and not computed

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """What `line` wrote."""
        return cls(**_record(line, cls))


def _record(line: str, record: type) -> dict[str, Any]:
    found = json.loads(line)
    known = {f.name for f in fields(record)}
    if not isinstance(found, dict) or "id" not in found or not found.keys() <= known:
        raise ValueError(f"not a {record.__name__.lower()}: {line[:80]!r}; its keys are {sorted(known)}")
    return found
