"""What a session refuses: uploads, paths, addresses, pictures and commands that make no sense."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from chatting import session_in
from servers import send_file, web_server

from streamvlm import Agent, SourceError, WatchConfig
from streamvlm.demo.chat import sources
from streamvlm.demo.chat.commands import carry_out
from streamvlm.demo.chat.feeds import NetworkFeed
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.pictures import decoded, jpeg
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.sources import ADDRESS, UPLOAD, WORLD, Choice, Sources
from streamvlm.demo.chat.uploads import inspect, receive

SAMPLE = Path(__file__).resolve().parent.parent / "demo" / "sample.mp4"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent.from_pretrained("tiny", watch=WatchConfig(fps=2.0, window_seconds=4.0)) as agent:
        yield agent


def test_an_uploaded_playlist_that_names_a_local_file_is_refused(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "secret.mp4")
    for text in (
        f"#EXTM3U\n#EXTINF:10,\nfile://{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n",
    ):
        upload = tmp_path / "upload.new"
        upload.write_text(text)
        with pytest.raises(Refused, match="playlist"):
            inspect(upload, Limits())
        assert not upload.exists()


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_an_upload_is_cut_off_at_its_limit_whatever_it_said_before(tmp_path: Path) -> None:
    target = tmp_path / "upload.new"
    with pytest.raises(Refused, match="larger"):
        asyncio.run(receive(_parts(bytes(600_000), bytes(600_000)), target, Limits(upload_mb=1)))
    assert not target.exists()
    asyncio.run(receive(_parts(b"ab", b"c"), target, Limits(upload_mb=1)))
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize(("limits", "why"), [({"upload_seconds": 5.0}, "longer"), ({"pixels": 100}, "pixels")])
def test_a_video_too_long_or_too_large_is_refused(tmp_path: Path, limits: dict[str, Any], why: str) -> None:
    upload = Path(shutil.copy(SAMPLE, tmp_path / "upload.new"))
    with pytest.raises(Refused, match=why):
        inspect(upload, Limits(**limits))
    assert not upload.exists()


def test_a_picture_with_too_many_pixels_or_of_another_format_is_refused() -> None:
    picture = jpeg(torch.zeros(3, 40, 60, dtype=torch.uint8), 640)
    assert decoded(picture, 2400).shape == (3, 40, 60)
    for data, most in ((picture, 2399), (picture[:100], 2400), (b"GIF89a", 2400), (b"", 2400)):
        with pytest.raises(Refused):
            decoded(data, most)


def test_a_path_from_the_page_is_never_opened(agent: Agent, tmp_path: Path) -> None:
    session = session_in(tmp_path / "s", agent)
    for name in (str(SAMPLE), f"file:{SAMPLE}", "..", ADDRESS):
        with pytest.raises(Refused, match="no such source"):
            carry_out(session, {"op": "start", "name": name, "path": str(SAMPLE), "address": str(SAMPLE)})
    with pytest.raises(Refused, match="Choose a video file"):
        carry_out(session, {"op": "start", "name": UPLOAD, "path": str(SAMPLE)})
    assert not session.watching


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "rtsp://localhost/live", "http://169.254.169.254/latest"])
def test_an_address_of_this_machine_is_refused_where_addresses_are_allowed(
    agent: Agent, tmp_path: Path, url: str
) -> None:
    session = session_in(tmp_path / "s", agent, sources=Sources(allow_urls=True))
    with pytest.raises(Refused, match="not allowed"):
        carry_out(session, {"op": "start", "name": ADDRESS, "address": url})


def test_a_server_cannot_send_us_to_this_machine() -> None:
    secret, asked = SAMPLE.read_bytes(), []

    def trap(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if request.path == "/moved":
            request.send_response(302)
            request.send_header("Location", f"{inside}/secret")
            request.end_headers()
        elif request.path == "/list.m3u8":
            lines = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{inside}/secret\n#EXT-X-ENDLIST\n"
            send_file(request, lines.encode())
        else:
            send_file(request, secret)

    with web_server(trap) as inside, web_server(trap) as outside:
        for path in ("/moved", "/list.m3u8"):
            with pytest.raises(SourceError):
                NetworkFeed(ADDRESS, outside + path, 2.0, follow=False)
            assert "/secret" not in asked and asked.pop() == path
        NetworkFeed(ADDRESS, f"{outside}/secret", 2.0, follow=False).close()  # what is meant is still watched
        NetworkFeed("Yard", f"{outside}/moved", 2.0).close()  # the operator's own cameras may move


def test_an_address_a_visitor_typed_is_not_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, bool]] = []
    monkeypatch.setattr(sources, "NetworkFeed", lambda _, url, fps, follow=True: opened.append((url, follow)))
    some = Sources({"Yard": "http://10.0.0.9/yard"}, allow_urls=True, resolver=lambda host, port: ["10.0.0.7"])
    some.open(Choice(ADDRESS, address="http://camera.lan/live"), 2.0, Limits())
    some.open(Choice("Yard"), 2.0, Limits())
    assert opened == [("http://10.0.0.7/live", False), ("http://10.0.0.9/yard", True)]


def test_a_camera_that_does_not_answer_is_told_without_its_address(agent: Agent, tmp_path: Path) -> None:
    named = Sources({"Front door": "rtsp://admin:hunter22@127.0.0.1:1/live"})
    session = session_in(tmp_path / "s", agent, sources=named)
    with pytest.raises(Refused) as raised:
        carry_out(session, {"op": "start", "name": "Front door"})
    assert "refused" in str(raised.value)
    assert not any(part in str(raised.value) for part in ("hunter22", "admin", "127.0.0.1"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"op": "rm"},
        {"op": "__class__"},
        {"op": "ask", "text": 5},
        {"op": "ask", "text": "  "},
        {"op": "ask", "text": "x" * 3000},
        {"op": "ask", "text": "hm?", "about": "now"},
        {"op": "ask", "text": "what is there?"},
        {"op": "stop", "entry": "1"},
        {"op": "start", "name": ["a"]},
        {"op": "start", "name": WORLD, "seed": float("nan")},
    ],
)
def test_a_command_that_makes_no_sense_is_refused(agent: Agent, tmp_path: Path, arguments: dict[str, Any]) -> None:
    session = session_in(tmp_path / "s", agent)
    with pytest.raises(Refused):
        carry_out(session, arguments)
    assert session.transcript.entries == []
