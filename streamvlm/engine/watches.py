"""Watch: a condition that a stream is watched for, and what happens when it comes true."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from streamvlm.engine.alarm import Alarm, Rule
from streamvlm.engine.answer import Answer
from streamvlm.engine.events import WatchFired
from streamvlm.engine.sight import Change
from streamvlm.engine.signal import Channel, Signal
from streamvlm.engine.triggers.base import Trigger

CALM = 0.02  # a picture that changes by less than this in every place need not be asked about
HEARTBEAT = 5.0  # seconds after which it is asked about anyway: what does not move can still come true
SETTLING = 2  # blocks that are asked about after a change, for a condition is believed when seen twice


_ASKED = re.compile(
    r"\s*(please\s+)?(tell|notify|alert|warn|let)\s+(me|us)(\s+know)?\s+(when|whenever|if|once|as soon as)\s+",
    re.IGNORECASE,
)


def condition_in(text: str) -> str:
    """What is to be watched for in what somebody says: "tell me when it rains" is about "it rains"."""
    return _ASKED.sub("", text, count=1).strip()


class Watch:
    """A condition being watched for. Iterate it (`for` or `async for`) for the times it fires, `wait()` for the next
    one, `cancel()` it at any time. Made by `Stream.watch`.
    """

    def __init__(self, condition: str, trigger: Trigger, rule: Rule, explain: str | None) -> None:
        self.condition = condition
        self.trigger = trigger
        self.rule = rule
        self.explain = explain  # asked when it fires
        self.probability: float | None = None  # as of the last look; None before the first
        self.looks = 0  # times the condition was evaluated
        self.fired: tuple[WatchFired, ...] = ()
        self.error: Exception | None = None  # why it cannot be watched for
        self.cancelled = False
        self.over = False  # it will not fire any more
        self._channel: Channel[WatchFired] = Channel()
        self._signal = Signal()

    def __repr__(self) -> str:
        return f"Watch({self.condition!r}, fired {len(self.fired)} times{', over' if self.over else ''})"

    def cancel(self) -> None:
        """Watch no more; takes effect at the next frame. Harmless once over."""
        self.cancelled = True
        self.end()

    def wait(self, timeout: float | None = None) -> WatchFired:
        """Wait until it has fired at least once; returns the first time.

        Raises:
            TimeoutError: `timeout` seconds passed first.
            LookupError: it is over, and never fired.
        """
        if not self._signal.wait_for(lambda: bool(self.fired) or self.over, timeout):
            raise TimeoutError(f"{self.condition!r} has not come true within {timeout} s")
        if not self.fired:
            raise LookupError(f"{self.condition!r} never came true") from self.error
        return self.fired[0]

    def __iter__(self) -> Iterator[WatchFired]:
        return iter(self._channel)

    def __aiter__(self) -> AsyncIterator[WatchFired]:
        return aiter(self._channel)

    # The engine's side

    def tell(self, event: WatchFired) -> None:
        """It fired."""
        with self._signal.changing():
            self.fired = (*self.fired, event)
        self._channel.put(event)

    def end(self, error: Exception | None = None) -> None:
        """It will not fire any more."""
        with self._signal.changing():
            self.over = True
            self.error = self.error or error
        self._channel.close()


@dataclass(slots=True, eq=False)
class Sentry:
    """A watch as the engine runs it: when to look, and what to make of it."""

    watch: Watch
    alarm: Alarm
    tell: Callable[[WatchFired], None]
    asking: bool = False  # a probe of it is under way
    due: bool = False  # and the next one is wanted
    _looked: float = -math.inf  # seconds, the last time
    _settling: int = SETTLING

    def saw(self, time: float, change: Change, stretch: float) -> None:
        """A block was seen: decide whether it is worth asking about. `stretch` > 1 asks less often, under load."""
        self._settling = SETTLING if change.most > CALM else self._settling - 1
        overdue = time - self._looked >= HEARTBEAT * stretch
        recent = time - self._looked < stretch - 1
        self.due = overdue or (self._settling >= 0 and not recent)

    def look(self, time: float, probability: float) -> float | None:
        """The condition was evaluated as of `time`; since when it has been true, if it fires now."""
        self._looked = max(self._looked, time)
        self.watch.probability = probability
        self.watch.looks += 1
        return self.alarm.look(time, probability)

    def fire(self, time: float, since: float, answer: Answer | None) -> None:
        """Tell everybody."""
        assert self.watch.probability is not None
        event = WatchFired(time, self.watch.condition, self.watch.probability, since, self.alarm.fired, answer)
        self.tell(event)
        self.watch.tell(event)
        if self.alarm.over:
            self.watch.end()
