"""Routes beside Gradio's page: the WebSocket, uploads, pictures, exports, login, and the operator's API."""

from __future__ import annotations

import asyncio
import math
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from streamvlm.demo.chat.access import Access
from streamvlm.demo.chat.export import FORMS
from streamvlm.demo.chat.guard import VISITOR, cookie_header
from streamvlm.demo.chat.live import Live
from streamvlm.demo.chat.refusals import Full, Refused
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sessions import Sessions
from streamvlm.demo.chat.sources import UPLOAD, Choice
from streamvlm.demo.chat.transcript import KINDS, NOTED
from streamvlm.demo.chat.uploads import check_size, inspect, receive

ASSETS = Path(__file__).parent / "assets"
SLOW_LOGIN = 1.0  # seconds a wrong password costs
FORM_BYTES = 4096  # of a login
ROUNDED = 0.005  # seconds; pages name a moment to the hundredth, which may be a little before it
NEAR = 2.0  # seconds
CACHED = {"Cache-Control": "private, max-age=86400"}


class Routes:
    """Handlers over the sessions of one server."""

    def __init__(self, sessions: Sessions, access: Access) -> None:
        self._sessions = sessions
        self._access = access

    def all(self) -> list[BaseRoute]:
        """Every route of ours; the guard stands before all of them."""
        return [
            WebSocketRoute("/chat/live", Live(self._sessions).serve),
            Route("/chat/upload", self.upload, methods=["POST"]),
            Route("/chat/video", self.video),
            Route("/chat/picture/{run:int}/{at:float}", self.picture),
            Route("/chat/transcript.{form}", self.transcript),
            Route("/chat/notes.{form}", self.notes),
            Route("/chat/login", self.login, methods=["GET", "POST"]),
            Route("/chat/assets/{name}", self.asset),
            Route("/api/status", self.status),
            Route("/api/sessions", self.resting),
            Route("/api/sessions/{identity}", self.delete, methods=["DELETE"]),
        ]

    def _session(self, request: Request) -> Session:
        return self._sessions.of(request.scope[VISITOR])

    async def upload(self, request: Request) -> Response:
        """Take a video, look at it, and watch it."""
        try:
            session = await run_in_threadpool(self._session, request)
            limits = self._sessions.limits
            check_size(int(request.headers.get("content-length", "0")), limits)
            fresh = session.folder / "upload.new"
            await receive(request.stream(), fresh, limits)
            await run_in_threadpool(inspect, fresh, limits)
            await run_in_threadpool(_watch_upload, session, fresh)
        except Full as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        except (Refused, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        return JSONResponse({"watching": UPLOAD})

    async def video(self, request: Request) -> Response:
        """The visitor's own upload, in parts as a player asks for them."""
        session = self._sessions.known(request.scope[VISITOR])
        if session is None or session.upload is None:
            return _nothing()
        return FileResponse(session.upload, media_type="video/mp4", headers={"Cache-Control": "no-store"})

    async def picture(self, request: Request) -> Response:
        """The picture kept of a moment of one of the visitor's own runs."""
        session = self._sessions.known(request.scope[VISITOR])
        run, at = request.path_params["run"], request.path_params["at"]
        if session is None or not math.isfinite(at):
            return _nothing()
        found = await run_in_threadpool(session.picture, run, at + ROUNDED)
        if found is None:
            return _nothing()
        lasting = abs(found[0] - at) < NEAR  # else a better one may be on its way to the disk
        return Response(found[1], media_type="image/jpeg", headers=CACHED if lasting else {})

    async def transcript(self, request: Request) -> Response:
        """What was said, as a file."""
        return self._file(request, "transcript", KINDS)

    async def notes(self, request: Request) -> Response:
        """What the model wrote down and said by itself, as a file."""
        return self._file(request, "notes", NOTED)

    def _file(self, request: Request, name: str, kinds: tuple[str, ...]) -> Response:
        form = request.path_params["form"]
        session = self._sessions.known(request.scope[VISITOR])
        if session is None or form not in FORMS:
            return _nothing()
        write, media_type = FORMS[form]
        headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
        entries = [entry for entry in session.transcript.entries if entry.kind in kinds]
        return Response(write(entries), media_type=media_type, headers=headers)

    async def asset(self, request: Request) -> Response:
        """The page's own script and looks."""
        name = request.path_params["name"]
        known = {path.name: path for path in ASSETS.iterdir()}
        return FileResponse(known[name], headers={"Cache-Control": "no-cache"}) if name in known else _nothing()

    async def login(self, request: Request) -> Response:
        """Ask for a name and a password; give a cookie for the right ones."""
        if not self._access.users:
            return RedirectResponse("/", status_code=303)
        if request.method == "GET":
            return HTMLResponse(_login_page(""))
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES:
                return _nothing()
        form = parse_qs(body.decode("utf-8", "replace"))
        user, password = form.get("user", [""])[0], form.get("password", [""])[0]
        if not self._access.admits(user, password):
            await asyncio.sleep(SLOW_LOGIN)
            return HTMLResponse(_login_page("That name and password do not match."), status_code=401)
        response = RedirectResponse("/", status_code=303)
        response.headers.append("Set-Cookie", cookie_header(request.scope, self._access.new_cookie(user)))
        return response

    async def status(self, request: Request) -> Response:
        """Who is here and how it goes."""
        rows = [
            {"identity": s.identity, "pages": s.pages, "watching": s.watching, "questions": len(s.transcript.waiting)}
            for s in self._sessions.awake
        ]
        return JSONResponse({"places": self._sessions.limits.visitors, "awake": rows})

    async def resting(self, request: Request) -> Response:
        """Identities of everything kept."""
        return JSONResponse({"sessions": await run_in_threadpool(self._sessions.resting)})

    async def delete(self, request: Request) -> Response:
        """Delete a session with all it holds."""
        done = await run_in_threadpool(self._sessions.delete, request.path_params["identity"])
        return JSONResponse({"deleted": done}, status_code=200 if done else 404)


def _watch_upload(session: Session, fresh: Path) -> None:
    session.stop()
    session.upload = fresh.replace(session.folder / "upload")
    session.start(Choice(UPLOAD, session.upload))


def _nothing() -> Response:
    return JSONResponse({"error": "there is nothing here"}, status_code=404)


def _login_page(message: str) -> str:
    page = (ASSETS / "login.html").read_text(encoding="utf-8")
    return page.replace("<!-- message -->", escape(message))
