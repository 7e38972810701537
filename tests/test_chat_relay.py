"""The relay that typed RTSP addresses are watched through: it passes a camera on, and nothing that leads elsewhere."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from media import number_of
from servers import RtspCamera, free_port

from streamvlm import SourceError
from streamvlm.demo.chat import sources
from streamvlm.demo.chat.feeds import NetworkFeed
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.relay import Relay, RelayedFeed, read_message
from streamvlm.demo.chat.sources import ADDRESS, Choice, Sources

FPS = 10.0


@contextmanager
def rtsp_server(answer: str) -> Iterator[tuple[str, list[str]]]:
    """Says `answer` to everything, SEQUENCE in it being the number of the request; gives its address and visitors."""
    listener, visits = socket.create_server(("127.0.0.1", 0)), list[str]()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    while request := client.recv(1 << 16).decode():
                        visits.append(request)
                        sequence = request.partition("CSeq:")[2].partition("\r")[0].strip()
                        client.sendall(answer.replace("SEQUENCE", sequence).encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live", visits
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def relays() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "chat-relay"]


@pytest.mark.parametrize("before", ["", "$\0\0\x04abcd"], ids=["at once", "after a packet of media"])
def test_a_typed_camera_cannot_send_us_elsewhere(before: str) -> None:
    with rtsp_server("RTSP/1.0 404 Not Found\r\nCSeq: SEQUENCE\r\n\r\n") as (inside, visits):
        moved = f"{before}RTSP/1.0 302 Found\r\nCSeq: SEQUENCE\r\nLocation: {inside}\r\n\r\n"
        with rtsp_server(moved) as (outside, asked):
            with pytest.raises(SourceError, match="sends to another address, which is not followed") as raised:
                RelayedFeed(ADDRESS, outside, FPS)
            assert asked and not visits and not relays()
            assert "127.0.0.1" not in str(raised.value)
            with pytest.raises(SourceError):
                NetworkFeed("Yard", outside, FPS)  # the operator's own cameras may move
            assert visits


def test_a_typed_camera_is_found_again_and_let_go_with_its_feed() -> None:
    port = free_port()
    with RtspCamera(port, first=0) as camera:
        feed = RelayedFeed(ADDRESS, camera.url, FPS)
        frames = [number_of(next(feed).data) for _ in range(20)]
    with RtspCamera(port, first=100):
        frames.append(number_of(next(frame for frame in feed if number_of(frame.data) >= 100).data))
        assert frames[:20] == list(range(20))
        assert len(relays()) == 1
        feed.close()
    assert not relays()


def test_what_is_wrong_with_a_typed_camera_is_told() -> None:
    with pytest.raises(SourceError, match="nothing is listening there"):
        RelayedFeed(ADDRESS, f"rtsp://127.0.0.1:{free_port()}/live", FPS)
    with rtsp_server("HTTP/1.1 200 OK\r\n\r\n") as (url, _), pytest.raises(SourceError, match="not speak RTSP"):
        RelayedFeed(ADDRESS, url, FPS)
    assert not relays()


def test_the_way_to_a_camera_is_there_no_longer_than_the_relay() -> None:
    relay = Relay("rtsp://me:se%40cret@127.0.0.1:9/live?x=1")
    parts = urlsplit(relay.url)
    assert (parts.username, parts.password, parts.hostname) == ("me", "se%40cret", "127.0.0.1")
    assert (parts.path, parts.query, parts.port == 9) == ("/live", "x=1", False)
    for _ in range(2):
        relay.close()
    assert not relays()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", parts.port or 0))


def passed_on(said: bytes) -> bytes:
    """What of this comes through."""

    async def read() -> bytes:
        camera = asyncio.StreamReader()
        camera.feed_data(said)
        camera.feed_eof()
        return await read_message(camera)

    return asyncio.run(read())


@pytest.mark.parametrize(
    "said",
    [
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\ncontent-length: 3\r\n\r\nv=0",
        b'RTSP/1.0 401 Unauthorized\nWWW-Authenticate: Digest realm="x"\n\n',
        b"GET_PARAMETER rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"$\0\0\x0cRTSP/1.0 302",
    ],
)
def test_messages_come_through_one_by_one_as_they_were_said(said: bytes) -> None:
    assert passed_on(said + b"RTSP/1.0 302 Found\r\n\r\n") == said


@pytest.mark.parametrize(
    "said",
    [
        b"RTSP/1.0 301 Moved\r\n\r\n",
        b"RTSP/1.0  307\r\n\r\n",
        b"REDIRECT rtsp://x/ RTSP/1.0\r\nLocation: rtsp://y/\r\n\r\n",
        b"\r\nRTSP/1.0 302 Found\r\n\r\n",
        b"\nRTSP/1.0 302 Found\r\n\r\n",
        b" RTSP/1.0 302 Found\r\n\r\n",
        b"RT\rSP/1.0 302 Found\r\n\r\n",
        b"RTSP/1.0 0302 Found\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n$\0\0\x04\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 9\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-\rLength: 9\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: +9\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -9\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nX: \0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_leads_elsewhere_or_could_be_read_in_two_ways_is_refused(said: bytes) -> None:
    with pytest.raises(Refused):
        passed_on(said + bytes(100))


def test_only_typed_rtsp_addresses_go_through_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[str] = []
    monkeypatch.setattr(sources, "RelayedFeed", lambda name, url, fps: relayed.append(url))
    some = Sources(allow_urls=True, resolver=lambda host, port: ["10.0.0.7"])
    some.open(Choice(ADDRESS, address="RTSP://me:secret@camera.lan:8554/live"), FPS, Limits())
    assert relayed == ["rtsp://me:secret@10.0.0.7:8554/live"]
    with pytest.raises(Refused, match="--source NAME=URL"):
        some.open(Choice(ADDRESS, address="rtsps://camera.lan/live"), FPS, Limits())
