"""From what a person writes as a source to what is to be opened."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from streamvlm.errors import SourceError

NETWORK_SCHEMES = ("rtsp", "rtsps", "udp", "tcp", "rtmp", "rtmps", "http", "https")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


class Medium(StrEnum):
    """Where a source is."""

    FILE = "file"
    IMAGES = "images"
    NETWORK = "network"
    WEBCAM = "webcam"


@dataclass(frozen=True, slots=True)
class Address:
    """One source, told apart."""

    shown: str  # for messages and logs: without a password
    url: str  # for FFmpeg; a plain path for files and images
    medium: Medium
    scheme: str  # of NETWORK_SCHEMES for a network source, else ""


def parse_address(uri: str | Path) -> Address:
    """Tell what `uri` is; raises SourceError when there is nothing of that name or the scheme is unknown."""
    text = str(uri)
    if isinstance(uri, str):
        camera = _webcam(text)
        if camera is not None:
            return Address(text, camera, Medium.WEBCAM, "")
        scheme = _scheme(text)
        if scheme in NETWORK_SCHEMES:
            return Address(redact(text), text, Medium.NETWORK, scheme)
        if scheme == "file":
            return _local(text, Path(url2pathname(urlsplit(text).path)))
        if scheme and not Path(text).exists():
            allowed = ", ".join((*NETWORK_SCHEMES, "file", "webcam"))
            raise SourceError(redact(text), f"the scheme {scheme!r} is not supported; supported are {allowed}")
    return _local(text, Path(text))


def redact(uri: str) -> str:
    """The address without user name and password, for logs and messages."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", uri)


def _scheme(text: str) -> str:
    # Two letters or more, so that a Windows drive letter is not taken for a scheme.
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", text)
    return match.group(1).lower() if match else ""


def _webcam(text: str) -> str | None:
    """The device FFmpeg knows the camera by, or None when `text` does not name a camera."""
    if match := re.fullmatch(r"(?:webcam:)?(\d+)|webcam:", text):
        return _camera_device(int(match.group(1) or 0))
    if text.startswith("webcam:"):
        return text.removeprefix("webcam:")
    return text if re.fullmatch(r"/dev/video\d+", text) else None


def _camera_device(number: int) -> str:
    return f"/dev/video{number}" if sys.platform.startswith("linux") else str(number)


def _local(shown: str, path: Path) -> Address:
    if not path.exists():
        raise SourceError(shown, "there is no such file")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return Address(shown, str(path), Medium.IMAGES, "")
    if not path.is_file():
        raise SourceError(shown, "it is neither a regular file nor a folder")
    return Address(shown, str(path), Medium.FILE, "")
