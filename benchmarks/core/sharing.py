"""Several ways of asking on one watching of a video.

What is perceived depends on nobody who asks, so ways that differ only in what an answer may use (blocks from disk,
notes) need not watch the same video each for itself: it is watched once with all that any of them needs, and every
question is asked in every way at the same moment. What the watching takes is written down apart, as the way WATCHING,
so that the cost of an answer is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from streamvlm import Stream, StreamVLMError
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.benchmarks.core.players import Outcome, failed, seconds
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Cost, Result, Sample
from streamvlm.benchmarks.core.streaming import Live, Step, StreamPlayer, reach

WATCHING = "watching"


@dataclass(frozen=True, slots=True)
class Part:
    """One way of asking, and what it has still to ask of a video."""

    name: str
    protocol: Protocol
    samples: Sequence[Sample]


def watched_as(ways: Sequence[Protocol]) -> Protocol:
    """How a video is watched once for all of these.

    Raises:
        ValueError: they do not perceive the same.
    """
    alike = {replace(way, name=WATCHING, memory=False, notes=False) for way in ways}
    if len(alike) != 1 or next(iter(alike)).replay != "stream":
        raise ValueError(f"{', '.join(way.name for way in ways)} cannot share one watching: they do not see the same")
    return replace(alike.pop(), memory=any(way.memory for way in ways), notes=any(way.notes for way in ways))


class SharedPlayer(StreamPlayer):
    """Shows the video once, by the setting's protocol (`watched_as`), and asks every question in every way that has
    still to ask it."""

    def share(
        self, samples: Sequence[Sample], parts: Sequence[Part], footage: Footage
    ) -> Iterator[tuple[str, Outcome]]:
        """(way, outcome), in order of time; `samples` are all that are asked of the video, by whichever way, so that
        the watching is measured from one to the next whatever has been asked before a kill."""
        todo = {(part.name, s.id): s for part in parts for s in part.samples}
        narrate = any(s.kind == "narration" for (way, _), s in todo.items() if way != WATCHING)
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(self.watch(footage, stack, narrate=narrate))
                for way, step in self._planned(samples, parts):
                    key = (way, step.live.sample.id)
                    outcome = step.take(stream) if key in todo or way == WATCHING else None
                    if outcome is not None and todo.pop(key, None) is not None:
                        yield way, outcome
        except StreamVLMError as error:
            yield from ((way, failed(sample, error)) for (way, _), sample in todo.items())

    def _planned(self, samples: Sequence[Sample], parts: Sequence[Part]) -> list[tuple[str, Step]]:
        """Everything to be done, in order of time; before each thing, its moment is reached."""
        asks: dict[str, list[tuple[str, Step]]] = {s.id: [] for s in samples}
        for part in parts:
            for sample in part.samples if part.name != WATCHING else ():
                asks[sample.id] += [(part.name, step) for step in self.steps(sample, part.protocol)]
        planned: list[tuple[str, Step]] = []
        for sample in samples:
            live = Live(sample, self.protocol, Cost(sample.id, 0.0))
            moments = sorted({step.at for step in self.steps(sample, self.protocol)})
            planned += [(WATCHING, Step(at, live, self._pass)) for at in moments[:-1]]
            planned += [(WATCHING, Step(moments[-1], live, self._passed)), *asks[sample.id]]
        return sorted(planned, key=lambda one: one[1].at)

    def _pass(self, live: Live, stream: Stream, at: float) -> None:
        reach(stream, at)

    def _passed(self, live: Live, stream: Stream, at: float) -> Result:
        reach(stream, at)
        return Result(live.sample.id, "answered", as_of=seconds(stream.now or 0.0))
