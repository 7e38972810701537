"""Sources: what a visitor can choose from, by name, and how each is opened. Addresses never reach a visitor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from streamvlm import SourceError
from streamvlm.demo.chat.addresses import SCHEMES, Resolve, checked_url, resolve
from streamvlm.demo.chat.feeds import CameraFeed, Feed, FileFeed, NetworkFeed, WorldFeed
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.relay import RelayedFeed

CAMERA, UPLOAD, WORLD, ADDRESS = "My camera", "My video file", "StreamWorld", "Another address"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a visitor chose: a name, and for some the rest."""

    name: str
    path: Path | None = None  # of the upload, from the session's own folder, never from the visitor
    address: str = ""  # typed by the visitor, where that is allowed
    seed: int = 7  # of the StreamWorld

    @property
    def kind(self) -> str:
        """How the page shows it: camera, file, or server (pictures come from here)."""
        return {CAMERA: "camera", UPLOAD: "file"}.get(self.name, "server")

    @property
    def key(self) -> str:
        """The same for the same live source, in letters that tell no address; empty for a file, which begins anew."""
        told = f"{self.name}\n{self.address}\n{self.seed if self.name == WORLD else 0}"
        return "" if self.name == UPLOAD else hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Sources:
    """What can be watched here.

    Args:
        named: the operator's cameras, name -> address.
        allow_urls: whether visitors may type an address of their own.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    allow_urls: bool = False
    resolver: Resolve = resolve

    def __post_init__(self) -> None:
        for name, url in self.named.items():
            if not name.strip() or name in (CAMERA, UPLOAD, WORLD, ADDRESS):
                raise ValueError(f"a source cannot be called {name!r}")
            if urlsplit(url).scheme not in SCHEMES:
                raise ValueError(f"source {name!r} must be a {', '.join(SCHEMES)} address")

    @property
    def names(self) -> list[str]:
        """Everything there is to choose from."""
        return [CAMERA, UPLOAD, WORLD, *self.named, *([ADDRESS] if self.allow_urls else [])]

    def open(self, choice: Choice, fps: float, limits: Limits) -> Feed:
        """Open it.

        Raises:
            Refused: there is no such source, it is not allowed, or it does not answer.
        """
        try:
            return self._open(choice, fps, limits)
        except SourceError as error:
            raise Refused(f"{choice.name} cannot be opened: {error.cause}.") from None

    def _open(self, choice: Choice, fps: float, limits: Limits) -> Feed:
        if choice.name == CAMERA:
            return CameraFeed(CAMERA, fps, limits.pixels)
        if choice.name == UPLOAD:
            if choice.path is None:
                raise Refused("Choose a video file first.")
            return FileFeed(UPLOAD, str(choice.path), fps)
        if choice.name == WORLD:
            return WorldFeed(WORLD, choice.seed, fps)
        if choice.name in self.named:
            return NetworkFeed(choice.name, self.named[choice.name], fps)
        if choice.name == ADDRESS and self.allow_urls:
            url = checked_url(choice.address, self.resolver)
            rtsp = url.startswith("rtsp:")
            return RelayedFeed(ADDRESS, url, fps) if rtsp else NetworkFeed(ADDRESS, url, fps, follow=False)
        raise Refused("There is no such source here.")
