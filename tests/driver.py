"""Runs the engine by hand, one step at a time, on frames encoded beforehand: no threads, no clocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from streamvlm.engine.answer import Answer
from streamvlm.engine.asking import fork_due
from streamvlm.engine.baselines import Schedule
from streamvlm.engine.engine import Engine
from streamvlm.engine.events import StreamEvent
from streamvlm.engine.perceiver import Block
from streamvlm.engine.questions import Question
from streamvlm.engine.signal import HandOver
from streamvlm.engine.stream import StreamState
from streamvlm.memory.window import Window
from streamvlm.models.attention import Backend
from streamvlm.models.base import VisionLanguageModel
from streamvlm.settings import SamplingConfig, WatchConfig


def random_blocks(
    model: VisionLanguageModel, n: int, *, seed: int = 0, size: tuple[int, int] = (32, 48)
) -> list[Block]:
    """`n` blocks of random pixels, half a second of stream to a frame."""
    generator = torch.Generator().manual_seed(seed)
    t = model.pixels.advance
    blocks = []
    for i in range(n):
        frames = torch.randint(0, 256, (model.pixels.temporal, 3, *size), dtype=torch.uint8, generator=generator)
        pts, duration = i * t * 0.5, t * 0.5
        tokens = model.encode(frames, [(pts, duration)])[0]
        blocks.append(Block(tokens, t, pts + duration - 0.5, None, 0.0, ()))
    return blocks


class Eyes:
    """A perceiver whose blocks are put in by hand."""

    def __init__(self) -> None:
        self.blocks: HandOver[Block] = HandOver(100_000)

    def stop(self) -> None:
        self.blocks.abandon()


class Recording:
    """A sampler that remembers the logits it chose from."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.logits: list[Tensor] = []

    def __call__(self, logits: Tensor) -> int:
        self.logits.append(logits.clone())
        return self.inner(logits)  # type: ignore[operator, no-any-return]


@dataclass
class Driver:
    """An engine and its streams, stepped by hand; every cache is checked after every step."""

    model: VisionLanguageModel
    backend: Backend = "sdpa"
    schedule: Schedule = "packed"
    streams: list[StreamState] = field(default_factory=list)
    events: list[StreamEvent] = field(default_factory=list)
    recordings: dict[Answer, Recording] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.model, backend=self.backend, schedule=self.schedule, on_step=self._check)

    def _check(self, stream: StreamState) -> None:
        assert stream.window is not None
        stream.window.check()

    def watch(self, blocks: list[Block], *, paced: bool = True, ended: bool = False, **options: Any) -> StreamState:
        """Add a stream that shows `blocks`."""
        eyes = Eyes()
        config = WatchConfig(**options)
        stream = StreamState(self.model, config, eyes, self.events.append, paced)  # type: ignore[arg-type]
        for block in blocks:
            eyes.blocks.put(block)
        if ended:
            eyes.blocks.close()
        self.streams.append(stream)
        self.engine.adopt(stream)
        return stream

    def show(self, stream: StreamState, blocks: list[Block]) -> None:
        """More frames arrive."""
        for block in blocks:
            stream.perceiver.blocks.put(block)

    def ask(self, stream: StreamState, question: str, at: float | None = None, **sampling: Any) -> Answer:
        """Ask a question, greedily answered unless said otherwise."""
        answer = Answer(question, at, lambda: None)
        stream.waiting.append(Question(answer, SamplingConfig(**sampling), at))
        return answer

    @torch.inference_mode()
    def step(self, times: int = 1) -> bool:
        """Run steps; whether the last one had anything to do."""
        busy = False
        for _ in range(times):
            for stream in self.streams:
                stream.look()
                fork_due(stream)
                for reader in stream.readers:
                    if reader.answer not in self.recordings:
                        recording = Recording(reader.sampler)
                        self.recordings[reader.answer] = recording
                        reader.sampler = recording  # type: ignore[assignment]
            busy = self.engine.step()
        return busy

    def run(self) -> None:
        """Step until nothing is left to do."""
        while self.step():
            pass


def window_of(stream: StreamState) -> Window:
    """The stream's window, which exists once it has seen a frame."""
    assert stream.window is not None
    return stream.window


def perceived(stream: StreamState) -> list[Tensor]:
    """Positions, keys and values of all that is in the window, in stream order."""
    window = window_of(stream)
    slots = torch.cat([e.slots for e in window.entries])
    return [window.cache.position[slots], window.cache.keys[:, :, slots], window.cache.values[:, :, slots]]


def content(stream: StreamState) -> list[Tensor]:
    """Un-rotated keys and values of the window: what does not depend on where positions start."""
    window = window_of(stream)
    slots = torch.cat([e.slots for e in window.entries])
    with torch.inference_mode():
        return [window.cache.unrotated(slots), window.cache.values[:, :, slots]]
