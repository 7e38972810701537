"""Natively streaming replay: a video is shown once; questions, watches and comments take their turn as it plays.

An exam is no part of what is watched: its questions leave no notes, so that none can see what was answered before it.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from streamvlm import Answer, Narrated, Stream, StreamEvent, StreamVLMError, Watch
from streamvlm.benchmarks.core.footage import Footage
from streamvlm.benchmarks.core.players import SHORT, Outcome, Player, failed, seconds, spent
from streamvlm.benchmarks.core.protocol import Protocol
from streamvlm.benchmarks.core.records import Cost, Result, Sample, Turn

SLACK = 1e-3  # seconds
UNWATCHED = ValueError("a protocol that shows every question a stream of its own watches for nothing")
COMMENT_TOKENS = 20  # of one second's comment, as in Inf-Streams-Eval
TOLD = 400  # characters of its own earlier comments that a model is reminded of


class Listener:
    """Keeps the lines that a stream narrates, on a thread that ends with the stream."""

    def __init__(self, stream: Stream) -> None:
        self._said: list[Narrated] = []
        self._seen = stream.now or 0.0  # seconds
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(stream.listen(),), daemon=True).start()

    def _read(self, events: Iterable[StreamEvent]) -> None:
        for event in events:
            with self._changed:
                if isinstance(event, Narrated):
                    self._said.append(event)
                self._seen = max(self._seen, event.pts)
                self._changed.notify_all()

    def until(self, moment: float) -> list[Narrated]:
        """What was said before `moment` seconds had been seen."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen >= moment)
            return list(self._said)


@dataclass(slots=True, eq=False)
class Live:
    """One sample while it is being played."""

    sample: Sample
    protocol: Protocol  # by which it is asked
    cost: Cost  # of its steps so far; what lies between them belongs to others
    watch: Watch | None = None
    listener: Listener | None = None
    turns: list[Turn] = field(default_factory=list)

    def wrote(self, answer: Answer) -> None:
        """Count what was written for it; the first token that counts is that of its first answer."""
        cost, wait = self.cost, None if answer.ttft_s is None else round(answer.ttft_s, 6)
        first = wait if cost.ttft_s is None else cost.ttft_s
        self.cost = replace(
            cost,
            tokens_out=cost.tokens_out + answer.tokens,
            ttft_s=first,
            rows_asked=cost.rows_asked + answer.tokens_read,
            rows_recalled=cost.rows_recalled + answer.tokens_recalled,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do at a moment of the stream."""

    at: float  # seconds
    live: Live
    do: Callable[[Live, Stream, float], Result | None]  # the result, if that ends the sample

    def take(self, stream: Stream) -> Outcome | None:
        """Do it, and count what it took."""
        begun, before = time.monotonic(), stream.stats
        try:
            result = self.do(self.live, stream, self.at)
        except ValueError as error:  # a question that is too long for the room it has
            return failed(self.live.sample, error)
        after, cost = stream.stats, self.live.cost
        self.live.cost = replace(
            cost,
            seconds=round(cost.seconds + time.monotonic() - begun, 6),
            frames=cost.frames + after.frames - before.frames,
            tokens_in=cost.tokens_in + after.tokens_seen - before.tokens_seen,
            rows_thought=cost.rows_thought + after.rows_thought - before.rows_thought,
        )
        return None if result is None else (result, self.live.cost)


class StreamPlayer(Player):
    """Shows the video once and asks every question as its moment comes."""

    def play(self, samples: Sequence[Sample], footage: Footage) -> Iterator[Outcome]:
        """In order of time. What fails the stream fails the samples that were still open."""
        questions = all(s.alert is None for s in samples)
        if self.protocol.afresh or (self.protocol.policy == "last_frames" and footage.seeks and questions):
            yield from (self._glimpse(s, footage) if s.alert is None else failed(s, UNWATCHED) for s in samples)
            return
        steps = sorted((step for s in samples for step in self.steps(s, self.protocol)), key=lambda step: step.at)
        open_samples = {s.id: s for s in samples}
        try:
            with ExitStack() as stack:
                stream = stack.enter_context(
                    self.watch(footage, stack, narrate=any(s.kind == "narration" for s in samples))
                )
                for step in steps:
                    outcome = step.take(stream) if step.live.sample.id in open_samples else None
                    if outcome is not None:
                        del open_samples[outcome[0].id]
                        yield outcome
        except StreamVLMError as error:
            yield from (failed(sample, error) for sample in open_samples.values())

    def _glimpse(self, sample: Sample, footage: Footage) -> Outcome:
        """A question of a stream of its own, which begins with the first frame that is still to be seen then."""
        begun, fps = time.monotonic(), self.protocol.fps
        at = self.protocol.asked_at(sample.time)
        try:
            shown = footage.since(self._first(at) / fps, fps)
            with self.agent.watch(shown, policy=self.protocol.policy, fps=fps, share_tower=False) as stream:
                answer = stream.ask(self.prompt(sample, 0.0, at), at=at)
                live = Live(sample, self.protocol, Cost(sample.id, 0.0))
                result = self._answered(live, stream, answer, at)
                cost = spent(sample, begun, stream, answer)
        except (StreamVLMError, ValueError) as error:
            return failed(sample, error)
        return result, cost

    def _first(self, at: float) -> int:
        """Index of the first frame that a question asked at `at` seconds is to see; under last_frames of the one before
        if the tower looks at both."""
        fps, spec, config = self.protocol.fps, self.agent.model.pixels, self.agent.watch_config
        frames = config.window_seconds * fps if self.protocol.afresh else config.last_frames
        whole = (math.floor(at * fps + SLACK) + 1) // spec.advance  # temporal patches there are by then
        # The first patch of an overlapping tower is seen with the frame before it; the policy drops that one's patch.
        before = spec.overlap > 0 and not self.protocol.afresh
        return max(0, whole - math.ceil(frames / spec.advance - SLACK) - before) * spec.advance

    def watch(self, footage: Footage, stack: ExitStack, *, narrate: bool) -> Stream:
        """Begin to show it."""
        store = None
        if self.protocol.memory:
            store = stack.enter_context(tempfile.TemporaryDirectory(prefix="streamvlm-bench-"))
        kept = {"store": store, "store_pictures": 0, "notes": self.protocol.notes, "narrate": narrate}
        kept["share_tower"] = False  # how many frames wait at once is chance, and a run must repeat to the byte
        frames = footage.stream(self.protocol.fps)
        return self.agent.watch(frames, policy=self.protocol.policy, fps=self.protocol.fps, **kept)

    def steps(self, sample: Sample, protocol: Protocol) -> list[Step]:
        """What is to be done for a sample, in order of time."""
        live = Live(sample, protocol, Cost(sample.id, 0.0))
        at = protocol.asked_at(sample.time)
        if sample.alert is None:
            return [Step(at, live, self._ask)]
        if sample.kind == "narration":
            return [Step(at, live, self._listen), Step(sample.alert.until + 1 / protocol.fps, live, self._heard)]
        if sample.kind == "proactive":
            # A file is shown no further before its watches have looked, so a frame later they all have.
            return [Step(at, live, self._begin), Step(sample.alert.until + 1 / protocol.fps, live, self._end)]
        rounds = max(1, round(sample.alert.until - at))
        return [Step(at + k, live, self._comment if k < rounds else self._close) for k in range(1, rounds + 1)]

    def _ask(self, live: Live, stream: Stream, at: float) -> Result:
        prompt, way = self.prompt(live.sample, 0.0, at), live.protocol
        return self._answered(
            live, stream, stream.ask(prompt, at=at, memory=way.memory, notes=way.notes, noted=False), at
        )

    def _answered(self, live: Live, stream: Stream, answer: Answer, at: float) -> Result:
        sample, text = live.sample, answer.text()
        as_of = answer.as_of or 0.0
        assert as_of <= at + SLACK, f"{sample.id} was answered as of {as_of} s, and asked at {at} s"
        note = f"asked at {at:g} s, the video ends at {as_of:.1f} s" if stream.ended and as_of < at - SHORT else ""
        live.wrote(answer)
        return Result(sample.id, "answered", text, seconds(as_of), note=note)

    def _begin(self, live: Live, stream: Stream, at: float) -> None:
        """Watch from the moment of the request on; neither the expected output nor the right moment is told."""
        assert live.sample.alert is not None
        reach(stream, at)
        if not stream.ended:
            alert = live.sample.alert
            live.watch = stream.watch(alert.condition, explain=live.sample.prompt or None, count=alert.count)

    def _end(self, live: Live, stream: Stream, at: float) -> Result:
        """What was called out by then; firing later could not be right any more."""
        sample, watch = live.sample, live.watch
        assert sample.alert is not None
        reach(stream, at)
        until = sample.alert.until
        fired = [event for event in (watch.fired if watch else ()) if event.pts <= until + SLACK]
        for event in fired:
            text = event.answer.text() if event.answer else ""
            if event.answer:
                live.wrote(event.answer)
            live.turns.append(Turn("assistant", text, seconds(event.pts)))
        if watch is not None:
            watch.cancel()
        note = "" if watch else "the video ended before the request"
        said = live.turns[0].content if live.turns else ""
        return Result(sample.id, "answered", said, turns=tuple(live.turns), note=note)

    def _listen(self, live: Live, stream: Stream, at: float) -> None:
        """Hear what the stream says by itself from now on."""
        reach(stream, at)
        live.listener = Listener(stream)

    def _heard(self, live: Live, stream: Stream, at: float) -> Result:
        """Everything it has said."""
        reach(stream, at)
        assert live.listener is not None and live.sample.alert is not None
        until = live.sample.alert.until
        said = live.listener.until(min(at, stream.now or 0.0) - SLACK)
        turns = tuple(Turn("assistant", e.text, seconds(e.pts)) for e in said if e.pts <= until + SLACK)
        return Result(live.sample.id, "answered", "", turns=turns)

    def _comment(self, live: Live, stream: Stream, at: float) -> None:
        """One more second's comment."""
        told = " ".join(t.content for t in live.turns)[-TOLD:]
        prompt = f"{live.sample.prompt} You said: {told}" if told else live.sample.prompt
        answer = stream.ask(prompt, at=at, noted=False, max_new_tokens=COMMENT_TOKENS)
        live.turns.append(Turn("assistant", answer.text(), seconds(at)))
        live.wrote(answer)

    def _close(self, live: Live, stream: Stream, at: float) -> Result:
        """The last one, and the result."""
        self._comment(live, stream, at)
        text = " ".join(t.content.strip() for t in live.turns)
        return Result(live.sample.id, "answered", text, seconds(at), tuple(live.turns))


def reach(stream: Stream, at: float) -> None:
    """Play to a moment. A question of one token does it: it disturbs nothing that is perceived, and what is due to be
    noted by then has been noted."""
    stream.ask("?", at=at, memory=False, noted=False, max_new_tokens=1).text()
