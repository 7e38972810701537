"""Causal replay: samples of one video in, results out; nothing is shown that is later than its question."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamvlm import Agent, Answer, Frame, Stream, StreamVLMError
from streamvlm.benchmarks.core.audio import Ear, Silent
from streamvlm.benchmarks.core.footage import Footage, nothing, only_until
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Cost, Result, Sample, Turn

Outcome = tuple[Result, Cost]
DEAF = Silent()
SHORT = 2.0  # seconds that a video may end before its question without a note


def with_transcript(prompt: str, said: str) -> str:
    """A question after what was said in the stretch it is about."""
    return f"What was said so far: {said}\n{prompt}" if said else prompt


def failed(sample: Sample, error: object) -> Outcome:
    """A sample that could not be answered; it stays in the denominator."""
    return Result(sample.id, "failed", note=f"{type(error).__name__}: {error}"), Cost(sample.id, 0.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every player needs."""

    protocol: Protocol
    agent: Agent | None = None
    ear: Ear = DEAF
    constant: Callable[[Sample], Result] | None = None


class Player(ABC):
    """Answers the samples of one video."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.protocol = setting.protocol

    @abstractmethod
    def play(self, samples: Sequence[Sample], footage: Footage) -> Iterator[Outcome]:
        """One outcome for each sample, in order of their time. Failures are outcomes."""

    @property
    def agent(self) -> Agent:
        """The model that is asked."""
        assert self.setting.agent is not None
        return self.setting.agent

    def prompt(self, sample: Sample, start: float, stop: float) -> str:
        """What is asked, with what was said in [start, stop] if the protocol wants it."""
        said = self.setting.ear(sample.video, start, stop) if self.protocol.audio else ""
        return with_transcript(sample.prompt, said)


class ConstantPlayer(Player):
    """Asks no model."""

    def play(self, samples: Sequence[Sample], footage: Footage) -> Iterator[Outcome]:
        """The benchmark's constant answers."""
        assert self.setting.constant is not None
        for sample in samples:
            yield self.setting.constant(sample), Cost(sample.id, 0.0)


class ClipPlayer(Player):
    """Shows every question a stretch of its own, in a stream of its own; `blind`: one black picture."""

    def play(self, samples: Sequence[Sample], footage: Footage) -> Iterator[Outcome]:
        """Each sample by itself, so that one that fails costs no other."""
        for sample in samples:
            try:
                yield self._poll(sample, footage) if sample.kind == "proactive" else self._ask(sample, footage)
            except (StreamVLMError, ValueError) as error:  # a video that fails; a question too long for its room
                yield failed(sample, error)

    def _ask(self, sample: Sample, footage: Footage) -> Outcome:
        begun = time.monotonic()
        start, stop, note = self.stretch(sample, footage)
        with self._watch(self._frames(footage, start, stop)) as stream:
            stream.wait()
            answer = stream.ask(self.prompt(sample, start, stop))
            text = answer.text()
            cost = spent(sample, begun, stream, answer)
        return Result(sample.id, "answered", text, seconds(start + (answer.as_of or 0.0)), note=note), cost

    def stretch(self, sample: Sample, footage: Footage) -> tuple[float, float, str]:
        """(start, stop) seconds that are shown, and what was odd about them."""
        wanted = self.protocol.asked_at(sample.time)
        if self.protocol.replay == "blind":
            return 0.0, wanted, ""
        stop = min(wanted, footage.duration)
        note = f"asked at {wanted:g} s, the video ends at {stop:.1f} s" if stop < wanted - SHORT else ""
        start = max(sample.start, 0.0 if self.protocol.context is None else stop - self.protocol.context)
        return min(start, stop), stop, note

    def _frames(self, footage: Footage, start: float, stop: float) -> Iterable[Frame]:
        if self.protocol.replay == "blind":
            return nothing()
        return only_until(footage.pictures(self.protocol.sample_times(start, stop), start), stop - start)

    def _watch(self, frames: Iterable[Frame]) -> Stream:
        # Frames alone in the vision tower: how many wait at once is chance, and a run must repeat to the byte.
        return self.agent.watch(frames, policy=self.protocol.policy, fps=self.protocol.fps, share_tower=False)

    def _poll(self, sample: Sample, footage: Footage) -> Outcome:
        """The official fallback: asked every second whether it is time, with the expected output in the question.

        One stream from the moment of asking on: with everything in view, that equals a clip for every poll.
        """
        assert sample.alert is not None
        begun = time.monotonic()
        start = self.protocol.asked_at(sample.time)
        turns: list[Turn] = []
        with self._watch(self._frames(footage, start, min(sample.alert.until, footage.duration))) as stream:
            for second in range(1, round(sample.alert.until - start) + 1):
                now = start + second
                said = stream.ask(sample.alert.poll, at=float(second)).text()
                turns += [Turn("user", sample.alert.poll, now), Turn("assistant", said, now)]
                if "yes" in said.lower():
                    last = stream.ask(sample.prompt, at=float(second))
                    turns += [Turn("user", sample.prompt, now), Turn("assistant", last.text(), now)]
                    return Result(sample.id, "answered", last.text(), now, tuple(turns)), spent(sample, begun, stream)
            cost = spent(sample, begun, stream)
        return Result(sample.id, "answered", "", turns=tuple(turns), note="never spoke"), cost


def spent(sample: Sample, begun: float, stream: Stream, answer: Answer | None = None) -> Cost:
    """What has been spent since `begun`, as a stream counts it."""
    stats = stream.stats
    return Cost(
        sample.id,
        round(time.monotonic() - begun, 6),
        stats.frames,
        stats.tokens_seen,
        answer.tokens if answer else 0,
        round(answer.ttft_s, 6) if answer and answer.ttft_s is not None else None,
        rows_asked=answer.tokens_read if answer else 0,
    )


def seconds(time: float) -> float:
    """A time of stream as results hold it."""
    return round(time, 6)
