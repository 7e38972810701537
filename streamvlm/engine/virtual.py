"""A virtual clock and an engine whose steps cost what a formula says: every policy, at any speed, without waiting.

Planner, caches, snapshots and readers are the real ones; only the forward pass is not computed but charged to the
clock. What comes out is a prediction for hardware that is described by a few numbers, and is to be called one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch

from streamvlm.engine.answer import Answer
from streamvlm.engine.baselines import Schedule
from streamvlm.engine.bidding import interval
from streamvlm.engine.engine import Engine
from streamvlm.engine.events import FramePerceived, StreamEvent
from streamvlm.engine.ladder import Ladder
from streamvlm.engine.perceiver import Block
from streamvlm.engine.planning import LONGEST_LAG
from streamvlm.engine.questions import Question
from streamvlm.engine.signal import HandOver
from streamvlm.engine.step import Outcome, StreamWork, last_rows
from streamvlm.engine.stream import StreamState
from streamvlm.models.attention import Backend
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import SamplingConfig, WatchConfig
from streamvlm.types import VisionTokens

QUESTION = "what is it?"


@dataclass(frozen=True, slots=True)
class Hardware:
    """A roofline: a step takes as long as its reading or its arithmetic, whichever is longer."""

    name: str
    weights: float  # seconds to read the weights once
    per_slot: float  # seconds to read one slot's keys and values, in all layers
    per_row: float  # seconds of arithmetic for one row
    per_pair: float  # seconds of arithmetic for one row attending to one slot
    per_frame: float = 0.0  # seconds of the vision tower, on the same device

    def seconds(self, works: Sequence[StreamWork]) -> float:
        """What a step takes. The slots of one stream are read once for all its rows."""
        reading, computing = self.weights, 0.0
        for work in works:
            slots = work.window.cache.extent
            reading += slots * self.per_slot
            computing += work.rows * (self.per_row + slots * self.per_pair)
            computing += 0.0 if work.perception is None else self.per_frame
        return max(reading, computing)


# 16 GB of weights, 147 kB of keys and values a token, 590 kFLOP a pair; 4.8 TB/s at 75 %, 989 TFLOP/s at 50 %.
H200_8B = Hardware("8B on an H200", 4.4e-3, 4.1e-8, 3.2e-5, 1.2e-9, 1.3e-3)


class VirtualClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class VirtualEyes:
    """A live source whose frames appear by the virtual clock; at most `queue` of them wait, the newest win."""

    def __init__(self, model: VisionLanguageModel, fps: float, tokens: int, queue: int) -> None:
        self.blocks: HandOver[Block] = HandOver(max(1, queue // model.pixels.advance))
        self.backlog = 0  # blocks waiting, the most ever
        self.dropped = 0  # frames that newer ones pushed out
        self._room = max(1, queue // model.pixels.advance)
        self._coming = self._film(model, fps, tokens)
        self._next = next(self._coming)

    @property
    def due(self) -> float:
        """When the next block is complete."""
        return self._next.last_pts

    def show(self, now: float) -> None:
        """Let everything appear that is due."""
        while self._next.last_pts <= now:
            self.dropped += self._next.frames if len(self.blocks) == self._room else 0
            self.blocks.put_newest(self._next)
            self._next = next(self._coming)
        self.backlog = max(self.backlog, len(self.blocks))

    def stop(self) -> None:
        """As a perceiver does."""
        self.blocks.abandon()

    def _film(self, model: VisionLanguageModel, fps: float, tokens: int) -> Iterator[Block]:
        layers, hidden, t = model.deepstack_layers, model.text_spec.hidden, model.pixels.advance
        rows = torch.zeros(tokens, hidden, dtype=model.dtype, device=model.device)
        for i in count():
            first, last = i * t / fps, (i * t + t - 1) / fps
            seen = VisionTokens(rows, (rows,) * layers, torch.arange(tokens), (1, tokens), first, t / fps)
            yield Block(seen, t, last, last, 0.0, ())


@dataclass(slots=True, eq=False)
class Life:
    """One simulated stream and what happened to it."""

    stream: StreamState
    eyes: VirtualEyes
    answers: int  # to be written at any time
    length: int  # tokens of each
    lags: list[float] = field(default_factory=list)
    asked: list[Answer] = field(default_factory=list)

    def hear(self, event: StreamEvent) -> None:
        """Remember the lags."""
        if isinstance(event, FramePerceived) and event.lag is not None:
            self.lags.append(event.lag)

    @property
    def dropped(self) -> int:
        """Frames that newer ones pushed out."""
        return self.eyes.dropped + self.stream.frames_dropped

    @property
    def tokens(self) -> int:
        """Written so far."""
        return sum(a.tokens for a in self.asked)


class Simulation:
    """Streams and askers on one engine, on virtual time.

    >>> run = Simulation(model, H200_8B)
    >>> life = run.add(fps=2.0, tokens=128, answers=16)
    >>> run.until(60.0)
    """

    def __init__(self, model: VisionLanguageModel, hardware: Hardware, *, schedule: Schedule = "packed") -> None:
        self.clock = VirtualClock()
        self.lives: list[Life] = []
        self.longest = 0.0  # seconds of a step
        self._hardware = hardware
        self._model = model
        self._quiet = torch.zeros(len(model.tokenizer))
        self._quiet[model.tokenize("a")[0]] = 1.0
        self.engine = Engine(model, schedule=schedule, clock=self.clock, prepare=self._prepare)

    def _prepare(self, works: list[StreamWork], model: VisionLanguageModel, backend: Backend) -> Callable[[], Outcome]:
        return lambda: self._charge(works, model)

    def _charge(self, works: list[StreamWork], model: VisionLanguageModel) -> Outcome:
        seconds = self._hardware.seconds(works)
        self.clock.now += seconds
        self.longest = max(self.longest, seconds)
        choosers = len(last_rows(works)[0])
        return Outcome(self._quiet.expand(choosers, -1), torch.zeros(choosers, model.text_spec.hidden))

    def add(self, *, fps: float, tokens: int, answers: int = 0, length: int = 64, queue: int = 4) -> Life:
        """A camera of so many frames per second and tokens per block, with `answers` being written at any time."""
        eyes = VirtualEyes(self._model, fps, tokens, queue)
        config = WatchConfig(fps=fps, max_readers=max(1, answers), max_answer_tokens=length, queue_frames=queue)
        stream = StreamState(self._model, config, eyes, lambda event: None, paced=True, clock=self.clock)  # type: ignore[arg-type]
        life = Life(stream, eyes, answers, length)
        stream.emit = life.hear
        if self.engine.eases:
            stream.ladder = Ladder(min(interval(stream), LONGEST_LAG))
        self.lives.append(life)
        self.engine.adopt(stream)
        return life

    @torch.inference_mode()
    def until(self, stop: float) -> None:
        """Let it run up to virtual second `stop`."""
        while self.clock.now < stop:
            for life in self.lives:
                life.eyes.show(self.clock.now)
                self._keep_asking(life)
            if not self.engine.step():
                self.clock.now = max(self.clock.now, min(life.eyes.due for life in self.lives))

    def _keep_asking(self, life: Life) -> None:
        """A new question for every answer that is done; under `blocking` when all are and nothing waits to be seen."""
        open_now = len(life.stream.readers) + len(life.stream.waiting)
        rounds = self.engine.schedule == "blocking"
        if rounds and (open_now or len(life.eyes.blocks)):
            return
        sampling = SamplingConfig(min_new_tokens=life.length, max_new_tokens=life.length)
        for _ in range(life.answers - open_now):
            answer = Answer(QUESTION, None, lambda: None, self.clock)
            life.asked.append(answer)
            life.stream.waiting.append(Question(answer, sampling, None))
