"""Who may come in, and which addresses may be watched. Needs neither a model nor Gradio."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamvlm.demo.chat.access import COOKIE, PROGRAM, Access, kept_secret
from streamvlm.demo.chat.addresses import checked_url, without_credentials
from streamvlm.demo.chat.guard import VISITOR, Guard
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.refusals import Refused
from streamvlm.demo.chat.settings import ChatSettings

SECRET = b"a secret of tests"
TOKEN = "a token of 24 characters"


async def whoami(request: Request) -> Response:
    return PlainTextResponse(str(request.scope[VISITOR]))


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.scope[VISITOR])
    await websocket.close()


def client(access: Access, hosts: frozenset[str] = frozenset(), base: str = "http://testserver") -> TestClient:
    """A browser before a guard with everything behind it answering."""
    paths = [
        "/",
        "/chat/video",
        "/chat/login",
        "/api/status",
        "/config",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
    ]
    routes: list[Any] = [Route(path, whoami, methods=["GET", "POST"]) for path in paths]
    routes.append(WebSocketRoute("/chat/live", socket))
    return TestClient(Guard(Starlette(routes=routes), access, hosts), base_url=base, follow_redirects=False)


def test_a_first_visit_is_given_a_cookie_and_everything_else_needs_it() -> None:
    browser = client(Access(SECRET))
    assert browser.get("/chat/video").status_code == 401
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/chat/live"):
        pass
    visitor = browser.get("/").text
    assert browser.get("/chat/video").text == visitor
    with browser.websocket_connect("/chat/live") as live:
        assert live.receive_text() == visitor
    assert client(Access(SECRET)).get("/").text != visitor


def test_the_cookie_is_kept_from_scripts_and_other_sites() -> None:
    header = client(Access(SECRET)).get("/").headers["set-cookie"]
    assert "HttpOnly" in header
    assert "SameSite=Strict" in header
    assert "Secure" in client(Access(SECRET), base="https://testserver").get("/").headers["set-cookie"]


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "a..", "visit.user.0000", "\x00"])
def test_a_made_up_cookie_opens_nothing(cookie: str) -> None:
    assert Access(SECRET).visitor(cookie) is None


def test_a_cookie_of_another_secret_user_or_password_opens_nothing() -> None:
    access = Access(SECRET, {"ann": "long enough"})
    cookie = access.new_cookie("ann")
    assert access.visitor(cookie) is not None
    assert Access(b"another secret of tests", {"ann": "long enough"}).visitor(cookie) is None
    assert Access(SECRET, {"ann": "changed since"}).visitor(cookie) is None
    assert Access(SECRET, {"bob": "long enough"}).visitor(cookie) is None
    assert access.visitor(Access(SECRET).new_cookie()) is None  # given before --auth was asked for


def test_with_auth_the_page_leads_to_the_login_and_gives_nothing_away() -> None:
    browser = client(Access(SECRET, {"ann": "long enough"}))
    answer = browser.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/chat/login")
    assert "set-cookie" not in answer.headers
    assert browser.get("/config").status_code == 401


def test_programs_need_the_token_and_a_cookie_is_not_one() -> None:
    browser = client(Access(SECRET, token=TOKEN))
    browser.get("/")
    assert browser.cookies.get(COOKIE)
    assert browser.get("/api/status").status_code == 401
    assert browser.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
    assert browser.get("/api/status", headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
    assert browser.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).text == PROGRAM


def test_without_a_token_no_program_comes_in() -> None:
    for header in ("Bearer ", "Bearer None", "bearer"):
        assert client(Access(SECRET)).get("/api/status", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/proxy=x", "/docs"])
def test_what_the_page_does_not_need_is_closed_to_everybody(path: str) -> None:
    browser = client(Access(SECRET, token=TOKEN))
    browser.get("/")
    assert browser.post(path).status_code == 404
    assert browser.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404


def test_a_page_elsewhere_cannot_use_a_visitors_browser() -> None:
    browser = client(Access(SECRET))
    browser.get("/")
    assert browser.post("/chat/video", headers={"Origin": "http://evil.example"}).status_code == 403
    assert browser.post("/chat/video", headers={"Origin": "http://testserver"}).status_code == 200
    headers = {"Origin": "http://evil.example"}
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/chat/live", headers=headers):
        pass


def test_a_name_that_was_made_to_mean_this_machine_is_refused() -> None:
    hosts = frozenset({"127.0.0.1", "localhost"})
    assert client(Access(SECRET), hosts, "http://evil.example").get("/").status_code == 403
    assert client(Access(SECRET), hosts, "http://localhost:7860").get("/").status_code == 200


def test_pages_load_nothing_from_elsewhere_and_cannot_be_framed() -> None:
    policy = client(Access(SECRET)).get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy


def test_the_secret_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    secret = kept_secret(tmp_path / "place")
    assert kept_secret(tmp_path / "place") == secret
    assert (tmp_path / "place" / "secret").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("access", [{"token": "short"}, {"users": {"ann": "short"}}, {"secret": b"short"}])
def test_weak_secrets_are_refused_without_being_shown(access: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as raised:
        Access(**{"secret": SECRET, **access})
    assert "short" not in str(raised.value)
    assert "secret" not in repr(Access(SECRET, {"ann": "long enough"}, TOKEN)).lower().replace("access", "")


def gives(*addresses: str) -> Any:
    return lambda host, port: list(addresses)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "concat:/etc/passwd|/etc/hostname",
        "subfile,,start,0,end,10,,:/etc/passwd",
        "/etc/passwd",
        "../secret",
        "data:video/mp4;base64,AAAA",
        "udp://10.0.0.1:1234",
        "tcp://10.0.0.1:22",
        "pipe:0",
        "http:///nothing",
        "rtsp://",
        "http://10.0.0.1:99999/",
        "http://10.0.0.1/a b",
        "http://10.0.0.1\\@evil/",
        "rtsp://a%0D%0aX:b@10.0.0.1/",
        "",
    ],
)
def test_other_protocols_and_broken_addresses_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="Only complete"):
        checked_url(url, gives("10.0.0.1"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "64:ff9b::7f00:1",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_names_of_this_machine_and_of_metadata_services_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="not allowed"):
        checked_url("rtsp://camera.example/live", gives(host))
    with pytest.raises(Refused, match="not allowed"):
        checked_url("rtsp://camera.example/live", gives("203.0.113.5", host))


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://localhost/"])
def test_other_spellings_of_this_machine_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        checked_url(url)


def test_a_name_nobody_knows_is_refused() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(Refused, match="not known"):
        checked_url("http://nowhere.example/", unknown)


def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    url = checked_url("rtsp://me:secret@camera.example:8554/live?x=1", gives("192.168.1.20"))
    assert url == "rtsp://me:secret@192.168.1.20:8554/live?x=1"
    assert checked_url("http://camera.example/", gives("2001:db8::5")) == "http://[2001:db8::5]/"


def test_credentials_and_queries_are_left_out_of_what_is_shown() -> None:
    shown = without_credentials("rtsp://me:se@cret@cam/live?token=abc failed")
    assert shown == "rtsp://cam/live failed"


def test_settings_that_would_let_anybody_in_are_refused() -> None:
    with pytest.raises(ValueError, match="--auth"):
        ChatSettings(host="0.0.0.0")
    assert ChatSettings(host="0.0.0.0", auth=("ann:long enough",)).users == {"ann": "long enough"}
    assert ChatSettings().host == "127.0.0.1"
    with pytest.raises(ValueError) as raised:
        ChatSettings(auth=("password-alone",))
    assert "password-alone" not in str(raised.value)


@pytest.mark.parametrize("name", ["visitors", "upload_mb", "retention_days"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_lifespan_passes_the_guard() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(Guard(app, Access(SECRET))({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
