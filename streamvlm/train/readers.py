"""Reading timestamped conversations: JSON lines as LiveCC, Inf-Streams-Train, VST and ThinkStream publish them.

docs/training.md has the schema. A line that cannot be used is counted and shown, never passed over in silence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamvlm.errors import TrainingError
from streamvlm.prompts import NARRATE, NOTHING, note_request, with_notes
from streamvlm.train.conversations import EPSILON, Conversation, Manner, Turn

log = logging.getLogger(__name__)

_SHOWN = 20  # bad lines that are shown one by one
Said = tuple[float, str]  # seconds, what was said
Note = tuple[float, float, str]  # seconds from when on it is known, of the stretch's start, what was noted


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """How what is written in a file becomes turns."""

    videos: Path  # the folder that videos are named from
    tick: float = 1.0  # seconds between two decisions to speak or to stay silent
    own_query: bool = False  # ask for commentary in the file's words instead of the engine's, which ask `--narrate`
    history: float = 0.0  # seconds of its earlier commentary that are repeated to the reader; the engine repeats none

    def __post_init__(self) -> None:
        if self.tick <= 0 or self.history < 0:
            raise ValueError(
                f"need tick_seconds > 0 and history_seconds >= 0, got tick={self.tick} and history={self.history}"
            )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that cannot be used."""

    source: str  # file and line
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What some files gave."""

    conversations: tuple[Conversation, ...]
    rejected: tuple[Rejected, ...]

    def __add__(self, other: Reading) -> Reading:
        return Reading(self.conversations + other.conversations, self.rejected + other.rejected)


def read_files(paths: Sequence[Path], spec: ReadSpec, most_bad: float) -> Reading:
    """All conversations of some files, in order.

    Raises:
        TrainingError: a file cannot be read, more than the share `most_bad` of all lines is bad, or none is good.
    """
    good: list[Conversation] = []
    bad: list[Rejected] = []
    for path in paths:
        for item in _lines(path, spec):
            (good if isinstance(item, Conversation) else bad).append(item)  # type: ignore[arg-type]
    for rejected in bad[:_SHOWN]:
        log.warning("left out: %s: %s", rejected.source, rejected.why)
    if bad:
        log.warning("%d of %d lines are left out", len(bad), len(good) + len(bad))
    names = ", ".join(map(str, paths))
    if len(bad) > most_bad * (len(good) + len(bad)):
        raise TrainingError(
            f"{names}: {len(bad)} of {len(good) + len(bad)} lines cannot be used, first {bad[0].source}: "
            f"{bad[0].why}; most_bad={most_bad} sets how many may be left out"
        )
    if not good:
        raise TrainingError(f"{names}: there is nothing to learn from")
    return Reading(tuple(good), tuple(bad))


def _lines(path: Path, spec: ReadSpec) -> Iterator[Conversation | Rejected]:
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            source = f"{path}:{number}"
            try:
                content = json.loads(line) if line.strip() else []
                if _is_index(content):
                    continue  # LiveCC's last line holds the byte offsets of the others
                yield parse(content, spec, source)
            except KeyError as error:
                yield Rejected(source, f"there is no {error.args[0]!r}")
            except (ValueError, TypeError, IndexError, AttributeError) as error:
                yield Rejected(source, str(error))


def _is_index(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(item, int) for item in content)


def parse(content: Any, spec: ReadSpec, source: str) -> Conversation:  # noqa: ANN401
    """One line's content.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: it is of no known form.
    """
    video, start, turns = _parser(content)(content, spec)
    path = spec.videos / video
    if not path.is_file():
        raise ValueError(f"there is no video {path}")
    if not turns:
        raise ValueError("nothing is said in it")
    return Conversation(path, tuple(sorted(turns, key=lambda turn: turn.time)), start, source)


Parsed = tuple[str, float, list[Turn]]  # video, seconds from where on it is talked about, turns


def _parser(content: Any) -> Callable[[Any, ReadSpec], Parsed]:  # noqa: ANN401
    if isinstance(content, Mapping):
        return _dialogue
    if not isinstance(content, list):
        raise ValueError(f"a line is a list of messages or an object, not {type(content).__name__}")
    streamed = any("text_stream" in part for message in content for part in _parts(message))
    return _commentary if streamed else _clips


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(message: Mapping[str, Any]) -> str:
    return " ".join(part["text"].strip() for part in _parts(message) if "text" in part).strip()


# LiveCC and Inf-Streams-Train: one stretch of video, and words with their times


def _commentary(messages: list[Any], spec: ReadSpec) -> Parsed:
    user, assistant = (next(m for m in messages if m["role"] == role) for role in ("user", "assistant"))
    video = next(part for part in _parts(user) if "video" in part)
    said = next(part for part in _parts(assistant) if "text_stream" in part)
    start = float(video.get("video_start") or 0.0)
    words = [(float(stop), str(word).strip()) for _, stop, word in said["text_stream"]]
    stop = float(video.get("video_end") or max((when for when, _ in words), default=start))
    query = (_text(user) if spec.own_query else "") or NARRATE
    before = next((str(part["previous"]).strip() for part in _parts(user) if part.get("previous")), "")
    turns = _narration(words, (start, stop), query, [(start, before)] if before else [], spec)
    turns += [
        Turn(float(when), str(question).strip(), str(answer).strip(), "answer")
        for _, when, question, answer in said.get("qa_stream") or []
    ]
    return video["video"], start, turns


def _narration(
    words: Sequence[tuple[float, str]], span: tuple[float, float], query: str, said: list[Said], spec: ReadSpec
) -> list[Turn]:
    """At every tick the words that ended since the last one, or nothing."""
    turns: list[Turn] = []
    start, stop = span
    ticks = int((stop - start) / spec.tick + EPSILON)
    if ticks < 1:
        raise ValueError(f"it is shorter than a tick: {start} to {stop} s")
    for number in range(1, ticks + 1):
        before, now = start + (number - 1) * spec.tick, start + number * spec.tick
        text = " ".join(
            w for when, w in words if before + EPSILON < when <= now + EPSILON or (number == 1 and when <= now)
        )
        recent = [note for note in said if note[0] >= now - spec.history - EPSILON]
        turns.append(Turn(now, with_notes(recent, query), text or NOTHING, "speak" if text else "silent"))
        if text:
            said.append((now, text))
    return turns


# VST: clip after clip, each with a thought or the answer to a question


def _clips(messages: list[Any], spec: ReadSpec) -> Parsed:
    turns: list[Turn] = []
    notes: list[Note] = []
    name, first, moment, since, asked = "", 0.0, 0.0, 0.0, ""
    for message in messages:
        if message["role"] == "user":
            asked = " ".join(part["text"].strip() for part in _parts(message) if _asks(part))
            for part in (part for part in _parts(message) if "video" in part):
                name, since = name or part["video"], float(part.get("video_start") or moment)
                first = first if turns else since
                moment = float(part["video_end"])
        elif message["role"] == "assistant":
            text = _text(message)
            question = _noted(notes, moment + EPSILON, asked) if asked else note_request(since)
            turns.append(Turn(moment, question, text, "answer" if asked else "note"))
            if not asked:
                notes.append((moment, since, text))
    if not name:
        raise ValueError("no message names a video")
    return name, first, turns


def _noted(notes: Sequence[Note], at: float, question: str) -> str:
    """A question with what is known before `at`, as the engine shows it: by when what was noted began."""
    return with_notes([(start, text) for known, start, text in notes if known < at], question)


def _asks(part: Mapping[str, Any]) -> bool:
    """Whether a piece of a user's message says something; a line of times is the format's own."""
    text = part.get("text", "").strip()
    return bool(text) and not (text.startswith("Time=") and " " not in text)


# ThinkStream, and what to write by hand: an object with timestamped messages and thoughts


def _dialogue(content: Mapping[str, Any], spec: ReadSpec) -> Parsed:
    video = content.get("video") or content["video_path"]
    turns: list[Turn] = []
    notes: list[Note] = []
    last = float(content.get("video_start") or 0.0)
    for thought in content.get("thoughts") or []:
        when, text = float(thought["timestamp"]), str(thought["think"]).strip()
        turns.append(Turn(when, note_request(last), text, "note"))
        notes.append((when, last, text))
        last = when
    pending: tuple[float, str] | None = None
    for message in content.get("conversations") or []:
        when, text = float(message["timestamp"]), _text(message)
        if message["role"] == "user":
            pending = when, text
        elif pending is None:
            raise ValueError(f"the assistant speaks at {when} s and nobody has asked anything")
        else:
            turns += _reply(pending, when, text, notes, spec)
    return str(video), float(content.get("video_start") or 0.0), turns


def _reply(asked: tuple[float, str], when: float, text: str, notes: list[Note], spec: ReadSpec) -> list[Turn]:
    """An answer at once, or silence at every tick until its moment has come."""
    since, question = asked
    if when < since:
        raise ValueError(f"the answer at {when} s is older than its question at {since} s")

    def turn(at: float, answer: str, manner: Manner) -> Turn:
        return Turn(at, _noted(notes, at, question), answer, manner)

    if when - since <= EPSILON:
        return [turn(when, text, "answer")]
    ticks = 1 + int((when - since) / spec.tick - EPSILON)  # before its moment, the question's own among them
    return [*(turn(since + n * spec.tick, NOTHING, "silent") for n in range(ticks)), turn(when, text, "speak")]
