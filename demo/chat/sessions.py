"""Sessions: who is here, who may come in, what is put away and what is deleted."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from streamvlm import Agent
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Full
from streamvlm.demo.chat.saving import FILE
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sources import Sources

GRACE = 60.0  # seconds without a page after which a session may have to make room for another visitor
DAY = 86400.0


def identity_of(visitor: str) -> str:
    """The name of a visitor's folder, from which their cookie cannot be told."""
    return hashlib.sha256(f"session of {visitor}".encode()).hexdigest()[:32]


class Sessions:
    """All sessions of one server, awake and put away.

    Args:
        folder: one sub-folder for each session.
        now: seconds since 1970.
    """

    def __init__(
        self, agent: Agent, sources: Sources, folder: Path, limits: Limits, now: Callable[[], float] = time.time
    ) -> None:
        self.agent = agent
        self.sources = sources
        self.folder = folder
        self.limits = limits
        self._now = now
        self._awake: dict[str, Session] = {}
        self._lock = threading.RLock()

    @property
    def awake(self) -> list[Session]:
        """Those in memory."""
        with self._lock:
            return list(self._awake.values())

    def of(self, visitor: str) -> Session:
        """The visitor's session, woken or made if need be.

        Raises:
            Full: every place is taken.
        """
        identity = identity_of(visitor)
        with self._lock:
            session = self._awake.get(identity)
            if session is None:
                self._make_room()
                session = Session(identity, self.folder / identity, self.agent, self.sources, self.limits)
                self._awake[identity] = session
            return session

    def enter(self, visitor: str) -> Session:
        """As `of`, for a page that is opened; `leave` when it is closed."""
        with self._lock:
            session = self.of(visitor)
            session.pages += 1
            return session

    def leave(self, session: Session) -> None:
        """A page was closed."""
        with self._lock:
            session.pages -= 1
            session.touch()

    def known(self, visitor: str) -> Session | None:
        """The visitor's session if it is awake."""
        with self._lock:
            return self._awake.get(identity_of(visitor))

    def _make_room(self) -> None:
        if len(self._awake) < self.limits.visitors:
            return
        longest = min(self._awake.values(), key=lambda session: session.idle_since)
        if longest.idle_since > self._now() - GRACE:
            places = self.limits.visitors
            raise Full(f"All {places} places are taken. A place becomes free when somebody leaves; this page waits.")
        self._put_away(longest)

    def _put_away(self, session: Session) -> None:
        session.put_away()
        del self._awake[session.identity]

    def delete(self, identity: str) -> bool:
        """Delete a session with all it holds; whether there was one."""
        with self._lock:
            session = self._awake.pop(identity, None)
            if session is not None:
                session.delete()
                return True
            place = self.folder / identity
            if identity not in self.resting():
                return False
            shutil.rmtree(place, ignore_errors=True)
            return True

    def resting(self) -> list[str]:
        """Identities of those on disk, awake or not."""
        if not self.folder.is_dir():
            return []
        return sorted(place.name for place in self.folder.iterdir() if place.is_dir())

    def tidy(self) -> None:
        """Save what changed, put away who has been gone for long, delete what is older than may be kept."""
        now = self._now()
        with self._lock:
            for session in list(self._awake.values()):
                if session.idle_since < now - 60 * self.limits.idle_minutes:
                    self._put_away(session)
                else:
                    session.save()
            for identity in self.resting():
                if identity not in self._awake and _last_used(self.folder / identity) < now - self._kept_for:
                    self.delete(identity)

    @property
    def _kept_for(self) -> float:
        return self.limits.retention_days * DAY

    def close(self) -> None:
        """Put everybody away."""
        with self._lock:
            for session in list(self._awake.values()):
                self._put_away(session)


def _last_used(folder: Path) -> float:
    """Seconds since 1970."""
    file = folder / FILE
    return (file if file.is_file() else folder).stat().st_mtime
