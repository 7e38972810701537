"""Relay: the way to an RTSP camera that a visitor typed. FFmpeg would follow its server to any other address.

FFmpeg is given an address of this machine, behind which one camera stands and nothing else. It is passed on only what
is surely understood the same way here and there, and no redirect, so it never has another address to go to.
"""

from __future__ import annotations

import asyncio
import re
import socket
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Thread
from urllib.parse import urlsplit, urlunsplit

from streamvlm import Frame, SourceError
from streamvlm.demo.chat.feeds import NetworkFeed
from streamvlm.demo.chat.refusals import Refused

PORT = 554
PATIENCE = 10.0  # seconds until the camera must have taken the connection
LINES, BODY = 100, 1 << 20  # most of a message's head, and bytes of its body
START = re.compile(rb"RTSP/\d\.\d +(?P<status>\d{3})(?: .*)?|(?P<method>[A-Z_]+) \S+ RTSP/\d\.\d")
LINE = re.compile(rb"[^$\x00-\x1f\x7f][^\x00-\x08\x0a-\x1f\x7f]*")  # FFmpeg drops every \r, and takes $ for a packet


async def read_message(camera: StreamReader) -> bytes:
    """The camera's next message, or packet of media, as it came.

    Raises:
        Refused: it leads elsewhere, or is not RTSP.
    """
    first = await camera.readexactly(1)
    if first == b"$":
        head = await camera.readexactly(3)
        return first + head + await camera.readexactly(int.from_bytes(head[1:], "big"))
    lines = [first + await camera.readuntil(b"\n")] if first != b"\n" else []
    while lines and lines[-1].strip(b"\r\n") and len(lines) < LINES:
        lines.append(await camera.readuntil(b"\n"))
    return b"".join(lines) + await camera.readexactly(_body_of(lines))


def _body_of(lines: list[bytes]) -> int:
    """Bytes of body that follow this head; raises Refused."""
    plain = [line.removesuffix(b"\n").removesuffix(b"\r") for line in lines]
    start = START.fullmatch(plain[0]) if plain else None
    if start is None or plain.pop() or not all(LINE.fullmatch(line) for line in plain):
        raise Refused("it does not speak RTSP")
    if (start["status"] or b"").startswith(b"3") or start["method"] == b"REDIRECT":
        raise Refused("its server sends to another address, which is not followed")
    lengths = [line.partition(b":")[2].strip() for line in plain if line.lower().startswith(b"content-length:")]
    if len(lengths) > 1 or not all(re.fullmatch(rb"\d{1,7}", length) for length in lengths):
        raise Refused("it does not speak RTSP")
    length = int(lengths[0]) if lengths else 0
    if length > BODY:
        raise Refused("what it tells about itself is too long")
    return length


class Relay:
    """Takes connections on this machine to one camera, on a thread of its own, until it is closed.

    Args:
        url: rtsp address whose host is an IP address that was looked at.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or PORT)
        self._listener = socket.create_server(("127.0.0.1", 0))
        credentials, at, _ = parts.netloc.rpartition("@")
        here = f"{credentials}{at}127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=here))  # for FFmpeg only
        self.trouble = ""  # why the newest connection was ended, where that was done here
        self._ended: Future[None] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="chat-relay", daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, sock=self._listener)
        await asyncio.wrap_future(self._ended)
        server.close()  # connections end with the loop, which cancels them

    async def _connect(self, here: StreamReader, player: StreamWriter) -> None:
        self.trouble = ""
        try:
            camera, there = await asyncio.wait_for(asyncio.open_connection(*self._target), PATIENCE)
            try:
                await self._converse((here, player), (camera, there))
            finally:
                there.close()
        except ConnectionRefusedError:
            self.trouble = "the connection was refused: nothing is listening there"
        except TimeoutError:
            self.trouble = f"no answer for {PATIENCE:g} s"
        except OSError:
            self.trouble = "it cannot be reached"
        finally:
            player.close()

    async def _converse(
        self, player: tuple[StreamReader, StreamWriter], camera: tuple[StreamReader, StreamWriter]
    ) -> None:
        """Pass on what both say, until either ends or the camera says something refused."""
        ways = [
            asyncio.create_task(self._up(player[0], camera[1])),
            asyncio.create_task(self._down(camera[0], player[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()

    async def _up(self, player: StreamReader, camera: StreamWriter) -> None:
        with suppress(OSError):
            while data := await player.read(1 << 16):
                camera.write(data)
                await camera.drain()

    async def _down(self, camera: StreamReader, player: StreamWriter) -> None:
        try:
            while True:
                player.write(await read_message(camera))
                await player.drain()
        except Refused as refused:
            self.trouble = str(refused)
        except LimitOverrunError:
            self.trouble = "it does not speak RTSP"
        except (IncompleteReadError, OSError):  # one of the two hung up
            return

    def close(self) -> None:
        """End it and its connections; harmless when called again."""
        with suppress(InvalidStateError):
            self._ended.set_result(None)
        self._thread.join()


class RelayedFeed(NetworkFeed):
    """An RTSP camera that is watched through a relay, each of its connections."""

    def __init__(self, name: str, url: str, fps: float) -> None:
        self._relay = Relay(url)
        try:
            super().__init__(name, self._relay.url, fps, follow=False)
        except BaseException as error:
            self._relay.close()
            if isinstance(error, SourceError):
                raise self._told(error) from None
            raise

    def _next(self) -> Frame | None:
        try:
            frame = super()._next()
        except SourceError as error:
            self._relay.close()
            raise self._told(error) from None
        if frame is None:
            self._relay.close()
        return frame

    def _told(self, error: SourceError) -> SourceError:
        """The error as the visitor may see it: what the relay knows, and nothing of its address."""
        return SourceError("the typed address", self._relay.trouble or error.cause)

    def close(self) -> None:
        """End it and hang up."""
        super().close()
        self._relay.close()
