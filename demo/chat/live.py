"""Live: one WebSocket to each page. Pictures and commands come up it, what changed goes down.

up    binary: 8 bytes float64, seconds since 1970 by the server's clock when the picture was taken, then a JPEG
      text:   {"op": …}, a command
down  text:   {"entries": [{"id", "html"}], "state": {…}, "samples": [{…}]} and whatever else is named below
      binary: 8 bytes float64, presentation time, 2 bytes each uint16: tokens kept of it and tokens it has, then a JPEG
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from streamvlm.demo.chat.commands import carry_out
from streamvlm.demo.chat.feeds import CameraFeed
from streamvlm.demo.chat.guard import VISITOR
from streamvlm.demo.chat.refusals import Full, Refused
from streamvlm.demo.chat.render import Renderer
from streamvlm.demo.chat.run import Run, View
from streamvlm.demo.chat.session import Session
from streamvlm.demo.chat.sessions import Sessions

TICK = 0.1  # seconds between two looks at what changed
STAMP = struct.Struct("<d")
SEEN = struct.Struct("<dHH")
OLDEST = 10.0  # seconds; a picture that claims to be older is taken for new
FULL, DELETED = 4503, 4410  # close codes


class Live:
    """Serves the pages' WebSockets."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._renderer = Renderer()

    async def serve(self, socket: WebSocket) -> None:
        """One page, until it goes away."""
        await socket.accept()
        try:
            session = await asyncio.to_thread(self._sessions.enter, socket.scope[VISITOR])
        except Full as error:
            await socket.send_json({"full": str(error)})
            await socket.close(FULL)
            return
        page = Page(socket, session, self._sessions, self._renderer)
        sender = asyncio.create_task(page.send())
        try:
            await page.receive()
        finally:
            self._sessions.leave(session)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sender


class Page:
    """One open page of a session."""

    def __init__(self, socket: WebSocket, session: Session, sessions: Sessions, renderer: Renderer) -> None:
        self._socket = socket
        self._session = session
        self._sessions = sessions
        self._renderer = renderer
        self._version = 0  # of the transcript, as this page has it
        self._state: dict[str, Any] = {}
        self._watches: list[dict[str, Any]] | None = None
        self._run: Run | None = None  # whose samples it has
        self._sampled = 0
        self._wants_view = False
        self._viewed: View | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self) -> None:
        """Take what the page sends until it hangs up."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                self._picture(message["bytes"])
            else:
                await self._command(message.get("text") or "")

    def _picture(self, data: bytes) -> None:
        run = self._session.run
        if run is None or not isinstance(run.feed, CameraFeed) or len(data) <= STAMP.size:
            return
        if len(data) > self._sessions.limits.frame_bytes:
            run.feed.broken += 1
            return
        (taken,) = STAMP.unpack(data[: STAMP.size])
        ago = time.time() - taken
        run.feed.push(data[STAMP.size :], time.monotonic() - (ago if 0.0 <= ago < OLDEST else 0.0))

    async def _command(self, text: str) -> None:
        try:
            arguments = json.loads(text)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            await self._say({"refused": "That was not understood."})
            return
        op = arguments.get("op")
        if op == "clock":  # the page learns how far its clock is from ours
            await self._say({"clock": arguments.get("sent"), "server": time.time()})
        elif op == "view":
            self._wants_view = arguments.get("on") is True
        elif op == "delete":
            await asyncio.to_thread(self._sessions.delete, self._session.identity)
        else:
            task = asyncio.create_task(self._carry_out(arguments))  # opening a camera may take seconds
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, arguments: dict[str, Any]) -> None:
        try:
            await asyncio.to_thread(carry_out, self._session, arguments)
        except Refused as error:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._say({"refused": str(error)})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def send(self) -> None:
        """Send what changed, as long as the page is there."""
        limits = self._sessions.limits
        hello = {"sources": self._sessions.sources.names, "frame": limits.frame_bytes, "upload": limits.upload_bytes}
        await self._say({"hello": hello})
        while not self._session.deleted:
            news = self._news()
            if news:
                await self._say(news)
            await self._send_view()
            await asyncio.sleep(TICK)
        await self._socket.close(DELETED)

    def _news(self) -> dict[str, Any]:
        news: dict[str, Any] = {}
        transcript = self._session.transcript
        changed = transcript.since(self._version)
        if changed:
            self._version = max(entry.version for entry in changed)
            news["entries"] = [
                {"id": f"entry-{e.number}", "kind": e.kind, "html": self._renderer.entry(e)} for e in changed
            ]
        state = self._session.state()
        if state != self._state:
            self._state = news["state"] = state
        watches = self._session.board.rows()
        if watches != self._watches:
            self._watches = news["watches"] = watches
        samples = self._samples()
        if samples:
            news["samples"] = samples
        return news

    def _samples(self) -> list[dict[str, float | None]]:
        run = self._session.run
        if run is None:
            return []
        if run is not self._run:
            self._run, self._sampled = run, 0
        run.sample()
        newest = run.instruments.made
        fresh, self._sampled = newest - self._sampled, newest
        return run.instruments.rows(fresh) if fresh else []

    async def _send_view(self) -> None:
        run, view = self._session.run, None
        if run is not None and self._wants_view:
            run.view_wanted, view = time.monotonic() + 1.0, run.view
        elif run is not None and run.choice.kind == "server":
            run.preview_wanted, view = time.monotonic() + 1.0, run.preview
        if view is not None and view is not self._viewed:
            self._viewed = view
            await self._socket.send_bytes(SEEN.pack(view.pts, view.kept, view.tokens) + view.picture)
