"""Cameras and web servers for the tests: they send what they have at once, and die when they are told to."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

import av
from media import HEIGHT, TICKS, WIDTH, coded_picture, constant_rate, transport_stream

RATE = 10  # pictures a second


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port nobody listens on."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def access_units(first: int, count: int) -> Iterator[tuple[int, bytes]]:
    """(time in ticks, H.264 bytes) of each picture, numbered from `first`."""
    codec: Any = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, TICKS), Fraction(RATE)
    codec.options = {"preset": "veryfast", "tune": "zerolatency", "g": "5", "crf": "20"}
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(coded_picture(first + index))
        frame.pts, frame.time_base = index * TICKS // RATE, codec.time_base
        for packet in codec.encode(frame):
            yield index * TICKS // RATE, bytes(packet)


class RtspCamera:
    """An RTSP server with one H.264 track, sent inside the RTSP connection. One client at a time."""

    def __init__(self, port: int, first: int, count: int = 30) -> None:
        self.url = f"rtsp://127.0.0.1:{port}/live"
        self._units = list(access_units(first, count))
        self._listener = socket.create_server(("127.0.0.1", port))
        self._client: socket.socket | None = None
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Die: nothing answers on the port any more, and the client's connection breaks."""
        for each in (self._listener, self._client):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._thread.join(30)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._client, _ = self._listener.accept()
                with suppress(OSError):
                    self._converse(self._client)

    def _converse(self, client: socket.socket) -> None:
        lines = client.makefile("rb")
        while request := lines.readline().decode():
            sequence = ""
            while (line := lines.readline().decode().strip()) != "":
                sequence = line.split(":")[1].strip() if line.lower().startswith("cseq") else sequence
            method = request.split()[0]
            client.sendall(self._reply(method, sequence))
            if method == "PLAY":
                self._play(client)

    def _reply(self, method: str, sequence: str) -> bytes:
        headers = ["RTSP/1.0 200 OK", f"CSeq: {sequence}", "Session: 1"]
        body = ""
        if method == "OPTIONS":
            headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            track = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
            body = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n{track}a=control:track0\r\n"
            headers += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            headers.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        return ("\r\n".join(headers) + "\r\n\r\n" + body).encode()

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        for ticks, unit in self._units:
            parts = [part for part in re.split(b"\0*\0\0\1", unit) if part]
            for part in parts:
                last = 0x80 if part is parts[-1] else 0
                packet = struct.pack(">BBHII", 0x80, 96 | last, sequence & 0xFFFF, ticks, 1) + part
                client.sendall(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)
                sequence += 1


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web_server(answer: Answer, port: int = 0) -> Iterator[str]:
    """A web server that answers each GET with `answer`; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def send_file(request: BaseHTTPRequestHandler, data: bytes) -> None:
    """Answer with a file of known length."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def send_range(request: BaseHTTPRequestHandler, data: bytes, length: int | None = None) -> None:
    """Answer with the part of a file that is asked for; hang up after `length` bytes of it."""
    begin = int(re.search(r"\d+", request.headers.get("Range", "bytes=0-"))[0])  # type: ignore[index]
    request.send_response(206)
    request.send_header("Accept-Ranges", "bytes")
    request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
    request.send_header("Content-Length", str(len(data) - begin))
    request.end_headers()
    request.wfile.write(data[begin:][:length])


def broadcast(request: BaseHTTPRequestHandler, data: bytes, hold: Event | None = None) -> None:
    """Answer without a length; then fall silent until `hold` is set, or hang up."""
    request.send_response(200)
    request.send_header("Content-Type", "video/mp2t")
    request.end_headers()
    request.wfile.write(data)
    request.wfile.flush()
    if hold is not None:
        hold.wait(60)


def broadcasts(*firsts: int) -> list[bytes]:
    """MPEG-TS of eight seconds each, numbered from `firsts`."""
    return [transport_stream(constant_rate(8.0, RATE), first=first, tune="zerolatency") for first in firsts]
