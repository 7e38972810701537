"""Guard: the one door. Every request passes it before Gradio or any route of ours sees it, WebSockets too.

What is not named here is not reachable, so a route that a new Gradio brings is closed until somebody opens it.
"""

from __future__ import annotations

import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamvlm.demo.chat.access import COOKIE, PROGRAM, Access

VISITOR = "streamvlm.visitor"  # in the scope of what passes
LOGIN = "/chat/login"
API = "/api/"
# What Gradio's page needs: itself, its code and its looks. Its API, uploads and files stay closed.
PAGE = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/[\w./@+-]+"
    r"|/gradio_api/(startup-events|info|app_id|heartbeat/\w+)"
)
OURS = re.compile(r"/chat/[\w./-]+")
SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """ASGI middleware around the whole app.

    Args:
        hosts: names this server is reached by; empty: any. A page elsewhere whose name is made to mean this machine
            would otherwise be able to read from it.
    """

    def __init__(self, app: ASGIApp, access: Access, hosts: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._access = access
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass, or answer in its place."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            visitor = self._visitor(scope["path"], headers)
            cookie = ""
            if visitor is None and scope["path"] == "/" and scope["type"] == "http":
                if self._access.users:
                    refusal = RedirectResponse(LOGIN, status_code=303)
                else:
                    cookie = self._access.new_cookie()
                    visitor = self._access.visitor(cookie)
            if visitor is not None:
                await self._app({**scope, VISITOR: visitor}, receive, _dressed(send, scope, cookie))
                return
            refusal = refusal or _no(401, "a login or a bearer token is needed")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            return
        await refusal(scope, receive, _dressed(send, scope, ""))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, host = scope["path"], headers.get("host", "")
        if self._hosts and urlsplit(f"//{host}").hostname not in self._hosts:
            return _no(403, "this server is not reached by that name")
        origin = headers.get("origin")
        writes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if writes and origin is not None and urlsplit(origin).netloc != host:
            return _no(403, "that comes from another site")
        if not (path.startswith(API) or OURS.fullmatch(path) or (PAGE.fullmatch(path) and not writes)):
            return _no(404, "there is nothing here")
        return None

    def _visitor(self, path: str, headers: Headers) -> str | None:
        if self._access.bears_token(headers.get("authorization", "")):
            return PROGRAM
        if path.startswith(API):
            return None  # a cookie is sent by the browser whoever makes it; a token is not
        if path == LOGIN:
            return ""
        return self._access.visitor(_cookie(headers.get("cookie", "")))


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _no(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status_code=status)


def cookie_header(scope: Scope, cookie: str) -> str:
    """The Set-Cookie header of a visit."""
    secure = "; Secure" if scope.get("scheme") in ("https", "wss") else ""
    return f"{COOKIE}={cookie}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Strict{secure}"


def _dressed(send: Send, scope: Scope, cookie: str) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if cookie:
                headers.append("Set-Cookie", cookie_header(scope, cookie))
        await send(message)

    return dressed
