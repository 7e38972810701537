"""Courier: calls back a caller's own functions, on a thread of their own: the engine never waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Courier:
    """Makes calls one after the other. Its thread exists from the first call until `close`."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    def call(self, function: Callable[[T], object], argument: T) -> None:
        """Have `function(argument)` called soon; what it raises is logged."""
        if self._closed:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamvlm-calls")
        self._thread.submit(_call, function, argument)

    def close(self) -> None:
        """Take no more calls. Does not wait: it may be one of them that closes."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def _call(function: Callable[[T], object], argument: T) -> None:
    try:
        function(argument)
    except Exception:  # a caller's own function may raise anything
        logger.exception("%r failed", function)
