"""Listeners: everybody who wants to hear what a stream tells, and nobody who has stopped listening."""

from __future__ import annotations

import threading
import weakref

from streamvlm.engine.events import StreamEvent
from streamvlm.engine.signal import Channel

EARLY = 256  # events kept for the first who listens


class Listeners:
    """Hands every event to every channel that somebody still holds.

    A stream runs before anybody can listen to it: what it tells until then is kept, the newest `EARLY` events of it,
    and goes to the first who does.
    """

    def __init__(self) -> None:
        self.channels: list[weakref.ref[Channel[StreamEvent]]] = []  # gone with whoever listened
        self._early: Channel[StreamEvent] | None = Channel(EARLY)
        self._closed = False
        self._door = threading.Lock()

    def open(self) -> Channel[StreamEvent]:
        """A channel with all that is told from now on; the first has what was told before, too."""
        with self._door:
            channel: Channel[StreamEvent] = Channel()
            if self._early is not None:
                channel.missed = self._early.missed
                for event in self._early.drain():
                    channel.put(event)
                self._early = None
            self.channels.append(weakref.ref(channel, self.channels.remove))
            if self._closed:
                channel.close()
        return channel

    def tell(self, event: StreamEvent) -> None:
        """Hand an event to everybody."""
        with self._door:
            for channel in self._present():
                channel.put(event)

    def close(self) -> None:
        """Nothing more will be told."""
        with self._door:
            self._closed = True
            for channel in self._present():
                channel.close()

    def _present(self) -> list[Channel[StreamEvent]]:
        present = [channel for listener in tuple(self.channels) if (channel := listener()) is not None]
        return present if self._early is None else [*present, self._early]
