"""What was said in a video, for questions that need to hear it: from subtitles, from Whisper, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from streamvlm import SourceError

RATE = 16_000  # samples a second, as Whisper wants them
PIECE = 30.0  # seconds that are transcribed at a time, as Whisper wants them
Transcribe = Callable[[NDArray[np.float32]], str]  # mono sound at RATE, [-1, 1], at most PIECE long -> its words
_TIME = r"(?:(\d+):)?(\d+):(\d+)[.,](\d+)"
_CUE = re.compile(rf"{_TIME}\s*-->\s*{_TIME}[^\n]*\n(.*?)(?:\n\s*\n|\Z)", re.DOTALL)


class Ear(Protocol):
    """Knows what is said in videos."""

    @property
    def name(self) -> str:
        """What results are stamped with."""

    def __call__(self, video: str, start: float, stop: float) -> str:
        """What was said in [start, stop] seconds, and nothing that was said later."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Hears nothing."""

    name: str = "silent"

    def __call__(self, video: str, start: float, stop: float) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class Subtitles:
    """Reads NAME.srt or NAME.vtt for the video NAME.*; a video without either is silent."""

    folder: Path
    name: str = "subtitles"
    _read: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)

    def __call__(self, video: str, start: float, stop: float) -> str:
        """The lines that were over by `stop`: one that is still being said would tell what is still to come."""
        if video not in self._read:
            self._read[video] = next(
                (cues(path.read_text(encoding="utf-8-sig")) for path in self._files(video) if path.is_file()), []
            )
        return " ".join(text for begins, ends, text in self._read[video] if begins >= start and ends <= stop)

    def _files(self, video: str) -> list[Path]:
        plain = (self.folder / video).with_suffix("")
        return [Path(f"{p}{suffix}") for p in (plain, self.folder / plain.name) for suffix in (".srt", ".vtt")]


def cues(text: str) -> list[tuple[float, float, str]]:
    """(start, stop, words) of a SubRip or WebVTT file, seconds."""
    found = []
    for match in _CUE.finditer(text.replace("\r\n", "\n")):
        begins, ends = (_seconds(*match.groups()[k : k + 4]) for k in (0, 4))
        words = " ".join(re.sub(r"<[^>]+>", "", match[9]).split())
        if words:
            found.append((begins, ends, words))
    return found


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + float(f"0.{fraction}")


@dataclass(frozen=True, slots=True)
class Transcriber:
    """Transcribes the sound track of videos, piece by piece from their start; each piece once."""

    videos: Path
    transcribe: Transcribe
    name: str
    _heard: dict[tuple[str, float, float], str] = field(default_factory=dict)

    def __call__(self, video: str, start: float, stop: float) -> str:
        """The words of every piece of the stretch; the last one ends where the stretch does."""
        first = int(start // PIECE)
        edges = [max(start, k * PIECE) for k in range(first, int(stop // PIECE) + 1)] + [stop]
        pieces = [(a, b) for a, b in pairwise(edges) if b > a]
        missing = [piece for piece in pieces if (video, *piece) not in self._heard]
        if missing:
            sound = samples(self.videos / video, missing[0][0], missing[-1][1])
            for a, b in missing:
                cut = sound[round((a - missing[0][0]) * RATE) : round((b - missing[0][0]) * RATE)]
                self._heard[video, a, b] = self.transcribe(cut).strip() if len(cut) else ""
        return " ".join(words for piece in pieces if (words := self._heard[video, *piece]))


def samples(path: Path, start: float, stop: float) -> NDArray[np.float32]:
    """The sound of [start, stop) as mono at RATE; empty for a video without sound.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return np.zeros(0, dtype=np.float32)
            return _decode(container, start, stop)
    except (FFmpegError, OSError) as error:
        raise SourceError(str(path), str(error)) from None


def _decode(container: Any, start: float, stop: float) -> NDArray[np.float32]:  # noqa: ANN401
    """Decoded from the start: audio is cheap, and seeking is not exact."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    sound = np.zeros(max(0, round((stop - start) * RATE)), dtype=np.float32)
    at = 0  # samples since the track began
    for frame in container.decode(audio=0):
        for part in resampler.resample(frame):
            values = part.to_ndarray().reshape(-1)
            offset = at - round(start * RATE)
            at += len(values)
            low, high = max(0, -offset), min(len(values), len(sound) - offset)
            if low < high:
                sound[offset + low : offset + high] = values[low:high]
        if at >= stop * RATE:
            break
    return sound[: max(0, at - round(start * RATE))]
