"""How the chat is served, as one record that checks itself. Imports nothing heavy, for `streamvlm --help`."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What the operator decides."""

    source: tuple[str, ...] = ()  # NAME=URL: cameras that visitors may watch
    allow_urls: bool = False  # whether visitors may type addresses of their own
    host: str = "127.0.0.1"
    port: int = 7860  # 0 takes any
    auth: tuple[str, ...] = ()  # NAME:PASSWORD
    token: str | None = None  # of programs; None: no API
    folder: str | None = None  # where sessions are kept; None: $XDG_STATE_HOME/streamvlm/chat
    visitors: int = 4  # sessions awake at the same time
    upload_mb: float = 200.0  # MiB
    idle_minutes: float = 20.0  # without a page, after which a session is put away
    retention_days: float = 7.0  # unused, after which a session is deleted

    def __post_init__(self) -> None:
        _ = self.cameras, self.users  # refuse what cannot be read
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be in 0..65535, got {self.port}")
        if self.host not in LOCAL and not self.auth:
            raise ValueError(f"host={self.host} can be reached by others: give --auth NAME:PASSWORD")

    @property
    def cameras(self) -> dict[str, str]:
        """Name -> address."""
        return _pairs(self.source, "=", "source")

    @property
    def users(self) -> dict[str, str]:
        """Name -> password."""
        return _pairs(self.auth, ":", "auth")

    @property
    def hosts(self) -> frozenset[str]:
        """Names the server may be called by; empty: any."""
        return frozenset(LOCAL) if self.host in LOCAL else frozenset()


def _pairs(texts: tuple[str, ...], sign: str, name: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        first, found, second = text.partition(sign)
        if not (first and found and second):
            raise ValueError(f"{name} must be two parts with {sign!r} between them")  # not shown: it may be a password
        pairs[first] = second
    return pairs
