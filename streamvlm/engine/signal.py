"""Hand-over between the engine's threads and its callers, blocking or async."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Signal:
    """A condition variable that threads and asyncio tasks can both wait on."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change shared state under the lock, then wake everybody who waits."""
        with self._condition:
            yield
            self._condition.notify_all()
            for loop, event in self._sleepers:
                with suppress(RuntimeError):  # the loop is closed, and its task with it
                    loop.call_soon_threadsafe(event.set)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Look at shared state under the lock."""
        with self._condition:
            yield

    def wait_for(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Block until `ready()`, evaluated under the lock; False if `timeout` seconds pass first."""
        with self._condition:
            return self._condition.wait_for(ready, timeout)

    async def wait_for_async(self, ready: Callable[[], bool]) -> None:
        """The same for a coroutine; never blocks the event loop."""
        event = asyncio.Event()
        sleeper = (asyncio.get_running_loop(), event)
        with self._condition:
            self._sleepers.add(sleeper)
        try:
            while True:
                event.clear()
                with self._condition:
                    if ready():
                        return
                await event.wait()
        finally:
            with self._condition:
                self._sleepers.discard(sleeper)


class Channel(Generic[T]):
    """A bounded queue to one consumer, who may iterate it or `async for` it. When full it forgets the oldest item
    and counts it in `missed`, so that a slow consumer never blocks the engine."""

    def __init__(self, size: int = 4096) -> None:
        self.missed = 0
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._signal = Signal()

    def put(self, item: T) -> None:
        """Add an item; ignored once closed."""
        with self._signal.changing():
            if self._closed:
                return
            self._items.append(item)
            if len(self._items) > self._size:
                self._items.popleft()
                self.missed += 1

    def close(self) -> None:
        """No more items; consumers end after those already there."""
        with self._signal.changing():
            self._closed = True

    def drain(self) -> list[T]:
        """Take what is there, without waiting."""
        with self._signal.changing():
            items = list(self._items)
            self._items.clear()
            return items

    def _ready(self) -> bool:
        return bool(self._items) or self._closed

    def __iter__(self) -> Iterator[T]:
        while True:
            self._signal.wait_for(self._ready)
            if not self._items:
                return
            yield self._items.popleft()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            await self._signal.wait_for_async(self._ready)
            if not self._items:
                return
            yield self._items.popleft()


class HandOver(Generic[T]):
    """A bounded queue from one thread to the next stage of the line.

    `mark` is all that is remembered of an item that is pushed out, for the item may be large.
    """

    def __init__(self, size: int, mark: Callable[[T], float] = lambda item: 0.0) -> None:
        self.dropped: list[float] = []  # marks of what `put_newest` pushed out since the consumer last looked
        self.error: Exception | None = None
        self._items: deque[T] = deque()
        self._size = size
        self._mark = mark
        self._closed = False
        self._signal = Signal()

    @property
    def finished(self) -> bool:
        """Closed by the producer, and empty."""
        with self._signal.locked():  # or `error` might not be there yet
            return self._closed and not self._items

    def __len__(self) -> int:
        with self._signal.locked():
            return len(self._items)

    def put(self, item: T) -> bool:
        """Wait for room; False if the queue was closed instead."""
        self._signal.wait_for(lambda: len(self._items) < self._size or self._closed)
        return self._append(item)

    def drop(self, mark: float) -> None:
        """Something that would have been put here was left out, and leaves this mark on `dropped`."""
        with self._signal.changing():
            self.dropped.append(mark)

    def put_newest(self, item: T) -> bool:
        """Never wait: the oldest item makes room and leaves its mark on `dropped`."""
        return self._append(item)

    def _append(self, item: T) -> bool:
        with self._signal.changing():
            if self._closed:
                return False
            if len(self._items) == self._size:
                self.dropped.append(self._mark(self._items.popleft()))
            self._items.append(item)
            return True

    def close(self, error: Exception | None = None) -> None:
        """End the queue; items already in it are still served."""
        with self._signal.changing():
            self._closed = True
            self.error = self.error or error

    def abandon(self) -> None:
        """The consumer has gone: forget everything and let the producer stop."""
        with self._signal.changing():
            self._closed = True
            self._items.clear()

    def peek(self) -> T | None:
        """The oldest item, without taking it; None when there is none yet."""
        with self._signal.locked():
            return self._items[0] if self._items else None

    def take(self, most: int) -> tuple[list[T], list[float]]:
        """Wait for at least one item, then take up to `most`; ([], …) at the end. Also the marks of those dropped."""
        self._signal.wait_for(lambda: bool(self._items) or self._closed)
        with self._signal.changing():
            items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            dropped, self.dropped = self.dropped, []
            return items, dropped
