"""The whole application: every route behind the door, one WebSocket per page, uploads, and Gradio's page itself."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from streamvlm import Agent, WatchConfig
from streamvlm.demo.chat.access import Access
from streamvlm.demo.chat.app import Chat, ChatOptions
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.sources import Sources

SAMPLE = Path(__file__).resolve().parent.parent / "demo" / "sample.mp4"
TOKEN = "a token of 24 characters"
OPEN = {"/", "/chat/login"}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent.from_pretrained("tiny", watch=WatchConfig(fps=2.0, window_seconds=4.0)) as agent:
        yield agent


@pytest.fixture
def chat(agent: Agent, tmp_path: Path) -> Iterator[Chat]:
    sources = Sources({"Front door": "rtsp://admin:hunter22@10.1.2.3/live"})
    access = Access(b"a secret of tests", token=TOKEN)
    chat = Chat(agent, ChatOptions(tmp_path, access, sources, Limits(visitors=2, upload_mb=1)))
    yield chat
    chat.sessions.close()


def browser(chat: Chat) -> TestClient:
    """A visitor who has opened the page."""
    client = TestClient(chat.app)
    assert client.get("/").status_code == 200
    return client


def heard(socket: WebSocketTestSession, name: str) -> Any:
    """The next message that has `name`."""
    while True:
        message = socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"])
        data = json.loads(message["text"]) if message.get("text") else {}
        if name in data:
            return data[name]


def paths_of(routes: list[Any], prefix: str = "") -> Iterator[str]:
    for route in routes:
        path = prefix + getattr(route, "path", "")
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            yield from paths_of(inner, path)
        else:
            yield re.sub(r"\{[^}]*\}", "1", path) or "/"


def test_no_route_of_ours_or_of_gradio_answers_without_a_cookie_or_a_token(chat: Chat) -> None:
    paths = set(paths_of(chat.inner.routes))
    assert {"/chat/upload", "/chat/video", "/api/status", "/gradio_api/upload", "/config"} <= paths
    stranger = TestClient(chat.app, follow_redirects=False)
    for path in sorted(paths - OPEN):
        for method in ("GET", "POST", "DELETE"):
            answer = stranger.request(method, path)
            assert answer.status_code in (401, 404), f"{method} {path}: {answer.status_code}"
            assert "set-cookie" not in answer.headers
    with pytest.raises(WebSocketDisconnect), stranger.websocket_connect("/chat/live"):
        pass


def test_the_api_is_for_the_token_alone(chat: Chat) -> None:
    visitor = browser(chat)
    for method, path in (("GET", "/api/status"), ("GET", "/api/sessions"), ("DELETE", "/api/sessions/x")):
        assert visitor.request(method, path).status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert visitor.get("/api/status", headers=headers).json() == {"places": 2, "awake": []}
    assert visitor.delete("/api/sessions/..", headers=headers).status_code == 404
    assert visitor.delete("/api/sessions/secret", headers=headers).status_code == 404


def test_the_page_names_the_sources_and_never_their_addresses(chat: Chat) -> None:
    visitor = browser(chat)
    page = visitor.get("/").text + visitor.get("/config").text
    with visitor.websocket_connect("/chat/live") as live:
        hello = heard(live, "hello")
    assert "Front door" in hello["sources"]
    assert "Front door" in page
    assert not any(part in page + json.dumps(hello) for part in ("hunter22", "admin", "10.1.2.3"))


def test_gradio_draws_and_runs_nothing(chat: Chat) -> None:
    config = browser(chat).get("/config").json()
    assert [d for d in config["dependencies"] if d.get("backend_fn")] == []


def test_two_visitors_see_nothing_of_each_other_and_a_third_is_told_it_is_full(chat: Chat) -> None:
    ann, bob, eve = browser(chat), browser(chat), browser(chat)
    with ann.websocket_connect("/chat/live") as hers, bob.websocket_connect("/chat/live") as his:
        heard(hers, "hello")
        hers.send_text(json.dumps({"op": "start", "name": "StreamWorld"}))
        assert "StreamWorld" in heard(hers, "entries")[0]["html"]
        heard(his, "hello")
        assert heard(his, "state")["source"] is None
        assert "StreamWorld" not in bob.get("/chat/transcript.md").text
        assert "StreamWorld" in ann.get("/chat/transcript.md").text
        assert "StreamWorld" not in ann.get("/chat/notes.md").text  # that is not a note
        assert ann.get("/chat/notes.json").json() == []
        assert bob.get("/chat/picture/1/0.5").status_code == 404
        with eve.websocket_connect("/chat/live") as third:
            assert "All 2 places are taken" in heard(third, "full")
    assert eve.post("/chat/upload", content=b"x").status_code in (422, 503)


def test_an_upload_is_watched_and_played_by_its_owner_only(chat: Chat) -> None:
    ann, bob = browser(chat), browser(chat)
    with ann.websocket_connect("/chat/live") as live:
        heard(live, "hello")
        answer = ann.post("/chat/upload", content=SAMPLE.read_bytes())
        assert (answer.status_code, answer.json()) == (200, {"watching": "My video file"})
        state = heard(live, "state")
        while state.get("kind") != "file":
            state = heard(live, "state")
        live.send_text(json.dumps({"op": "playhead", "at": 3.0, "playing": False, "rate": 1}))
        while (state.get("now") or 0.0) < 2.9:
            state = heard(live, "state")
        part = ann.get("/chat/video", headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, SAMPLE.read_bytes()[:4])
        assert bob.get("/chat/video").status_code == 404
        picture = ann.get("/chat/picture/1/2.0")
        assert picture.headers["content-type"] == "image/jpeg"
        assert ann.get("/chat/picture/1/1.996").content == picture.content  # pages round to hundredths
        assert ann.get("/chat/picture/1/1.98").content != picture.content


@pytest.mark.parametrize("data", [b"", b"no video", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", bytes(1_200_000)])
def test_what_cannot_be_watched_is_refused_and_not_kept(chat: Chat, tmp_path: Path, data: bytes) -> None:
    answer = browser(chat).post("/chat/upload", content=data)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert list(tmp_path.rglob("upload*")) == []


@pytest.mark.parametrize("path", ["/chat/assets/..%2f..%2f__init__.py", "/chat/assets/chat.py", "/chat/transcript.py"])
def test_only_files_that_are_meant_are_served(chat: Chat, path: str) -> None:
    assert browser(chat).get(path).status_code == 404
    assert browser(chat).get("/gradio_api/file=/etc/passwd").status_code == 404


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"op": "nothing"}', '{"op": "ask"}'])
def test_nonsense_from_a_page_is_answered_and_the_page_stays(chat: Chat, text: str) -> None:
    with browser(chat).websocket_connect("/chat/live") as live:
        live.send_text(text)
        assert heard(live, "refused")
        live.send_bytes(b"no camera is on")
        live.send_text('{"op": "clock", "sent": 1}')
        assert heard(live, "clock") == 1


def test_pictures_that_are_none_or_too_large_are_counted_and_forgotten(chat: Chat) -> None:
    with browser(chat).websocket_connect("/chat/live") as live:
        live.send_text(json.dumps({"op": "start", "name": "My camera"}))
        state = heard(live, "state")
        while state.get("kind") != "camera":
            state = heard(live, "state")
        (session,) = chat.sessions.awake
        live.send_bytes(struct.pack("<d", 0.0) + bytes(2_000_000))
        live.send_bytes(struct.pack("<d", 0.0) + b"GIF89a")
        live.send_text('{"op": "clock", "sent": 1}')
        heard(live, "clock")
        live.send_text('{"op": "leave"}')
        while state.get("source") is not None:
            state = heard(live, "state")
        assert session.run is None


def test_deleting_gives_the_page_a_fresh_session(chat: Chat, tmp_path: Path) -> None:
    visitor = browser(chat)
    with visitor.websocket_connect("/chat/live") as live:
        live.send_text(json.dumps({"op": "start", "name": "StreamWorld"}))
        heard(live, "entries")
        live.send_text('{"op": "delete"}')
        with pytest.raises(WebSocketDisconnect) as closed:
            heard(live, "nothing")
        assert closed.value.code == 4410
    assert list(tmp_path.iterdir()) == []
    with visitor.websocket_connect("/chat/live") as live:
        assert heard(live, "state")["source"] is None
    assert visitor.get("/chat/transcript.md").text.strip() == "# Transcript"


def test_the_login_opens_the_page_to_the_right_password(agent: Agent, tmp_path: Path) -> None:
    access = Access(b"a secret of tests", {"ann": "right horse"})
    client = TestClient(Chat(agent, ChatOptions(tmp_path, access)).app)
    assert "Password" in client.get("/").text
    assert client.post("/chat/login", data={"user": "ann", "password": "wrong"}).status_code == 401
    assert client.get("/config").status_code == 401
    page = client.post("/chat/login", data={"user": "ann", "password": "right horse"})
    assert page.url.path == "/"
    assert client.get("/config").status_code == 200
