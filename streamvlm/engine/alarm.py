"""Alarm: when a condition whose probability is looked at now and then should be called out."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """When a watch fires. It is true once the probability is `sure`, or at least `on` twice in a row, and false again
    below `off`; each time it becomes true it fires once."""

    sure: float = 0.9
    on: float = 0.6
    off: float = 0.4
    count: int | None = None  # times it fires at most; None: every time
    for_at_least: float = 0.0  # seconds it must have been true
    until: float = math.inf  # seconds of stream time after which nothing is watched
    cooldown: float = 0.0  # seconds from one time to the next at least

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= self.sure <= 1:
            raise ValueError(f"off={self.off}, on={self.on}, sure={self.sure} must be in order, from 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1, or None for every time")
        for name in ("for_at_least", "until", "cooldown"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more seconds")


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
        if probability < self.rule.off:
            self.true = self._told = False
            self.since = None
        elif probability >= self.rule.on:
            self.true = self.true or probability >= self.rule.sure or self.since is not None
            self.since = time if self.since is None else self.since
        elif not self.true:
            self.since = None
