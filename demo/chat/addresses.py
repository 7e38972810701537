"""Which addresses a visitor may have watched. Cameras named by the operator never come this way.

A server that opens any address for anybody can be made to reach what only it can reach: its own services, and the
metadata service of a cloud. So a name is resolved once, every address it has is looked at, and the connection goes
to the address that was looked at, not to the name, which could mean another one a moment later.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit, urlunsplit

from streamvlm.demo.chat.refusals import Refused

SCHEMES = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
TYPED = ("rtsp", "http", "https")  # where an rtsps server leads cannot be seen, so only the operator names those
SPECIAL = tuple(ipaddress.ip_network(n) for n in ("100.100.100.200/32", "fd00:ec2::/32", "64:ff9b::/96", "2002::/16"))

Resolve = Callable[[str, int], list[str]]
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name."""
    return sorted({str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


def checked_url(text: str, resolver: Resolve = resolve) -> str:
    """The address to connect to, with the host's name replaced by its address.

    Raises:
        Refused: the protocol is not one of TYPED, or the host is this machine, a metadata service, or unknown.
    """
    parts = _split(text.strip())
    host, port = parts.hostname or "", parts.port or SCHEMES[parts.scheme]
    try:
        found = [ipaddress.ip_address(address.partition("%")[0]) for address in resolver(host, port)]
    except (OSError, ValueError, UnicodeError):
        raise Refused("This address is not known.") from None
    if not found or any(_forbidden(address) for address in found):
        raise Refused("This address is not allowed: it leads to this machine or to a service of its network.")
    return urlunsplit(parts._replace(netloc=_netloc(parts, found[0])))


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        known = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    # FFmpeg decodes user name and password, and a line break in them would be one of its request.
    broken = re.search(r"[\s\x00-\x1f\\]|://[^/?#]*%([01][0-9a-f]|7f)", text, re.IGNORECASE)
    if known and not broken and parts.scheme not in TYPED:
        raise Refused(f"{parts.scheme} addresses cannot be typed; the operator can name one with --source NAME=URL.")
    if not known or broken:
        raise Refused(f"Only complete {', '.join(TYPED)} addresses can be watched.")
    return parts


def _forbidden(address: Ip) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return _forbidden(mapped)
    local = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return local or address.is_reserved or any(address in network for network in SPECIAL)


def _netloc(parts: SplitResult, address: Ip) -> str:
    credentials, at, _ = parts.netloc.rpartition("@")
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{credentials}{at}{host}" + (f":{parts.port}" if parts.port else "")


def without_credentials(text: str) -> str:
    """`text` with user names and passwords of addresses, and what follows a `?` in them, left out."""
    text = re.sub(r"(?<=://)[^/?#\s]*@", "", text)
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", text)
