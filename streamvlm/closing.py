"""Context management for everything that has a `close`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Closing:
    """Closes on leaving a `with` or `async with` block; the latter without blocking the event loop."""

    def close(self) -> None:
        """Let go of everything; harmless when called again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)
