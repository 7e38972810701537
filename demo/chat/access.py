"""Access: who a request comes from. A browser shows a signed cookie, a program a bearer token."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

COOKIE = "streamvlm_visit"
PROGRAM = "the bearer of the token"  # the visitor that programs are


@dataclass(frozen=True, slots=True)
class Access:
    """What opens the door.

    Args:
        secret: signs the cookies; they hold across restarts as long as it stays.
        users: name -> password; empty: whoever reaches the page may come in.
        token: of programs; None: they may not come in.
    """

    secret: bytes = field(repr=False)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < 16:
            raise ValueError("the secret must have 16 bytes or more")
        if self.token is not None and len(self.token) < 16:
            raise ValueError("the token must have 16 characters or more")
        if any(not name or len(password) < 8 for name, password in self.users.items()):
            raise ValueError("auth must be NAME:PASSWORD with 8 characters or more in the password")

    def new_cookie(self, user: str = "") -> str:
        """A visit that nobody can guess."""
        visit = secrets.token_urlsafe(24)
        return f"{visit}.{user}.{self._signature(visit, user)}"

    def visitor(self, cookie: str) -> str | None:
        """Who shows this cookie; None if it is not one of ours, or its user or password is no longer valid."""
        visit, _, rest = cookie.partition(".")
        user, _, signature = rest.rpartition(".")
        if not visit or (user not in self.users if self.users else user != ""):
            return None
        return visit if hmac.compare_digest(signature, self._signature(visit, user)) else None

    def _signature(self, visit: str, user: str) -> str:
        message = f"{visit}\n{user}\n{self.users.get(user, '')}".encode()
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()

    def admits(self, user: str, password: str) -> bool:
        """Whether this is a user's password; takes the same time for unknown users."""
        known = self.users.get(user, "")
        return hmac.compare_digest(known.encode(), password.encode()) and user in self.users

    def bears_token(self, authorization: str) -> bool:
        """Whether an Authorization header holds the token."""
        kind, _, given = authorization.partition(" ")
        expected = self.token or ""
        return kind.lower() == "bearer" and bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def kept_secret(folder: Path) -> bytes:
    """The secret of this folder, made when it is first asked for."""
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    return path.read_bytes()
