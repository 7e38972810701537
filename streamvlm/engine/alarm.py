"""Alarm: when a condition whose probability is looked at now and then should be called out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

USUAL = 60  # looks at a condition that did not hold, by which its usual probability is known
FEWEST = 8  # of them, before anything is
_SHARE = 0.9  # of them are no more probable than the usual
_FAR = 20.0  # log-odds beyond which nothing is told apart


@dataclass(frozen=True, slots=True)
class Rule:
    """When a watch fires. It is true once the probability is `sure`, or at least `on` twice in a row, and false again
    below `off`; each time it becomes true it fires once.

    A model that takes a condition for half true all the time tells nothing by it. So the log-odds must also be `rise`
    above what they usually are while the condition does not hold (a threshold that follows the noise, as of radar
    receivers with a constant false alarm rate; Finn and Johnson, 1968).
    """

    sure: float = 0.9
    on: float = 0.6
    off: float = 0.4
    rise: float = 2.0  # in log-odds; 0 goes by the probability alone
    count: int | None = None  # times it fires at most; None: every time
    for_at_least: float = 0.0  # seconds it must have been true
    until: float = math.inf  # seconds of stream time after which nothing is watched
    cooldown: float = 0.0  # seconds from one time to the next at least

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= self.sure <= 1:
            raise ValueError(f"off={self.off}, on={self.on}, sure={self.sure} must be in order, from 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1, or None for every time")
        for name in ("rise", "for_at_least", "until", "cooldown"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclass(slots=True)
class Alarm:
    """One watch's state."""

    rule: Rule
    fired: int = 0
    over: bool = False  # it will not fire any more
    since: float | None = None  # seconds, the first look at which it seemed true; None while it does not
    true: bool = False
    _told: bool = False  # of this time
    _last: float = -math.inf  # seconds, when it fired last
    _false: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL))  # log-odds while it was not true
    _open: float | None = None  # log-odds of the last look, which counts as false unless the next one makes it true

    def look(self, time: float, probability: float) -> float | None:
        """It was looked at; returns since when it has been true, if this is the moment to tell."""
        if time > self.rule.until:
            self.over = True
        if self.over:
            return None
        self._follow(time, probability)
        if not self.true or self._told or self.since is None:
            return None
        if time - self.since < self.rule.for_at_least or time - self._last < self.rule.cooldown:
            return None
        self._told, self._last = True, time
        self.fired += 1
        self.over = self.fired == self.rule.count
        return self.since

    def _follow(self, time: float, probability: float) -> None:
        odds = log_odds(probability)
        risen = self.rule.rise == 0 or odds >= self.usual + self.rule.rise
        if probability < self.rule.off:
            self.true = self._told = False
            self.since = None
        elif probability >= self.rule.on and risen:
            self.true = self.true or probability >= self.rule.sure or self.since is not None
            self.since = time if self.since is None else self.since
        elif not self.true:
            self.since = None
        self._remember(odds)

    @property
    def usual(self) -> float:
        """Log-odds that are seldom exceeded while the condition does not hold; -inf before there is enough to know."""
        if len(self._false) < FEWEST:
            return -math.inf
        return sorted(self._false)[math.ceil(_SHARE * len(self._false)) - 1]

    def _remember(self, odds: float) -> None:
        if self.true:
            self._open = None
            return
        if self._open is not None:
            self._false.append(self._open)
        self._open = odds


def log_odds(probability: float) -> float:
    """Of a probability in 0..1, to within +-20."""
    if not 0 < probability < 1:
        return math.copysign(_FAR, probability - 0.5)
    return max(-_FAR, min(_FAR, math.log(probability / (1 - probability))))
