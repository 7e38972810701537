"""Listeners: everybody who wants to hear what a stream tells, and nobody who has stopped listening."""

from __future__ import annotations

import weakref

from streamvlm.engine.events import StreamEvent
from streamvlm.engine.signal import Channel


class Listeners:
    """Hands every event to every channel that somebody still holds."""

    def __init__(self) -> None:
        self.channels: list[weakref.ref[Channel[StreamEvent]]] = []  # gone with whoever listened
        self._closed = False

    def open(self) -> Channel[StreamEvent]:
        """A channel with all that is told from now on."""
        channel: Channel[StreamEvent] = Channel()
        self.channels.append(weakref.ref(channel, self.channels.remove))
        if self._closed:  # looked at last: a `close` meanwhile has either seen the channel or set this
            channel.close()
        return channel

    def tell(self, event: StreamEvent) -> None:
        """Hand an event to everybody."""
        for channel in self._present():
            channel.put(event)

    def close(self) -> None:
        """Nothing more will be told."""
        self._closed = True
        for channel in self._present():
            channel.close()

    def _present(self) -> list[Channel[StreamEvent]]:
        return [channel for listener in tuple(self.channels) if (channel := listener()) is not None]
