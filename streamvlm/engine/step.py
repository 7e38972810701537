"""One step: a single forward pass over the new rows of everything that has something to say right now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamvlm.engine.questions import Perception
from streamvlm.engine.reader import Reader
from streamvlm.engine.stream import StreamState
from streamvlm.memory.rows import Rows
from streamvlm.memory.window import Window
from streamvlm.models.attention import Backend, Group, Probing, StepCache, make_group
from streamvlm.models.base import LanguageInput, VisionLanguageModel
from streamvlm.types import Segment


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A reader's rows in a step."""

    reader: Reader
    segment: Segment
    rows: Rows
    samples: bool  # a token is chosen from its last row


@dataclass(frozen=True, slots=True, eq=False)
class StreamWork:
    """What one stream contributes to a step."""

    stream: StreamState
    perception: Perception | None
    turns: tuple[Turn, ...]
    window: Window  # the stream's, in which they have their slots, also if the stream is closed before they are run
    heard: bool = False  # whether somebody wants to know what the model makes of the newest frame

    @property
    def parts(self) -> list[tuple[Segment, Rows]]:
        """Its rows in packed order: perception first, then each reader's."""
        seen = [] if self.perception is None else self.perception.placed
        return [*seen, *((t.segment, t.rows) for t in self.turns)]

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return sum(len(s) for s, _ in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a step's forward pass says, in the order of `last_rows`."""

    logits: Tensor  # float32 [choosers, vocabulary]
    hidden: Tensor  # [choosers, hidden], what they come from


def pack(
    works: Sequence[StreamWork], model: VisionLanguageModel, backend: Backend
) -> tuple[LanguageInput, list[Group]]:
    """Lay the rows of all streams end to end and plan each stream's attention."""
    segments: list[Segment] = []
    positions: list[Tensor] = []
    groups: list[Group] = []
    start = 0
    for work in works:
        parts = work.parts
        stop = start + sum(len(s) for s, _ in parts)
        cache, rows = work.window.cache, [r for _, r in parts]
        groups.append(make_group(cache, slice(start, stop), rows, backend, probings(work, start, model)))
        segments += [s for s, _ in parts]
        positions += [r.positions for _, r in parts]
        start = stop
    injected = [s.deepstack for s in segments if s.deepstack]
    batch = LanguageInput(
        embeds=torch.cat([s.embeds for s in segments])[None].to(model.dtype),
        positions=torch.cat(positions)[None].to(model.device),
        visual=torch.cat([s.visual for s in segments])[None].to(model.device),
        deepstack=tuple(torch.cat(layer) for layer in zip(*injected, strict=True)),
    )
    return batch, groups


def probings(work: StreamWork, start: int, model: VisionLanguageModel) -> list[Probing]:
    """The questions of one stream that are read to know what to look for; its rows begin at `start`."""
    found: list[Probing] = []
    at = start + (0 if work.perception is None else sum(len(s) for s, _ in work.perception.placed))
    for turn in work.turns:
        stop = at + len(turn.segment)
        if turn.reader.lookup is not None:
            cos, sin = model.rotary(turn.rows.positions.to(model.device))
            found.append(Probing(turn.reader.lookup.probe, slice(at, stop), cos, sin))
            turn.reader.lookup.probe.rows += stop - at
        at = stop
    return found


def last_rows(works: Sequence[StreamWork]) -> tuple[list[tuple[StreamState, Reader | None]], list[int]]:
    """The readers that choose a token in this step and the packed row each chooses from; None in the place of one
    stands for a stream that listens to what the model makes of its newest frame."""
    choosers: list[tuple[StreamState, Reader | None]] = []
    rows: list[int] = []
    at = 0
    for work in works:
        seen = work.perception
        at += 0 if seen is None else sum(len(s) for s, _ in seen.placed)
        if seen is not None and seen.block is not None and work.heard:
            choosers.append((work.stream, None))
            rows.append(at - 1)
        for turn in work.turns:
            at += len(turn.segment)
            if turn.samples:
                choosers.append((work.stream, turn.reader))
                rows.append(at - 1)
    return choosers, rows


def prepare_step(works: Sequence[StreamWork], model: VisionLanguageModel, backend: Backend) -> Callable[[], Outcome]:
    """The forward pass, ready to be called: it fills the streams' caches, and asks nothing more of streams and readers,
    which may be closed meanwhile where there is another thread."""
    batch, groups = pack(works, model, backend)
    _, rows = last_rows(works)

    def run() -> Outcome:
        hidden = model.language(batch, cache=StepCache(groups), step=groups)[0]
        last = hidden[torch.tensor(rows, dtype=torch.int64, device=hidden.device)]
        logits = model.logits(last)
        if logits.device.type == "cuda":
            torch.cuda.current_stream(logits.device).synchronize()  # or a frame would be called committed before it is
        return Outcome(logits, last)

    return run
