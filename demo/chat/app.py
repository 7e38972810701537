"""The chat as one ASGI application: Gradio's page, our routes beside it, and the guard before both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from streamvlm import Agent
from streamvlm.demo.chat.access import Access, kept_secret
from streamvlm.demo.chat.guard import Guard
from streamvlm.demo.chat.limits import Limits
from streamvlm.demo.chat.page import HEAD, page, theme
from streamvlm.demo.chat.routes import Routes
from streamvlm.demo.chat.sessions import Sessions
from streamvlm.demo.chat.settings import ChatSettings
from streamvlm.demo.chat.sources import Sources

TIDY_SECONDS = 15.0  # between two rounds of saving and putting away


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How the chat is run."""

    folder: Path  # of the sessions
    access: Access
    sources: Sources = field(default_factory=Sources)
    limits: Limits = field(default_factory=Limits)
    hosts: frozenset[str] = frozenset()  # names it is reached by; empty: any


def options_of(settings: ChatSettings, default_folder: Path) -> ChatOptions:
    """What the operator's settings mean; makes the folder and its secret if they are not there yet."""
    place = default_folder if settings.folder is None else Path(settings.folder)
    limits = Limits(
        visitors=settings.visitors,
        upload_mb=settings.upload_mb,
        idle_minutes=settings.idle_minutes,
        retention_days=settings.retention_days,
    )
    access = Access(kept_secret(place), settings.users, settings.token)
    sources = Sources(settings.cameras, settings.allow_urls)
    return ChatOptions(place / "sessions", access, sources, limits, settings.hosts)


class Chat:
    """The application and the sessions behind it."""

    def __init__(self, agent: Agent, options: ChatOptions) -> None:
        self.sessions = Sessions(agent, options.sources, options.folder, options.limits)
        inner = FastAPI(lifespan=self._lifespan, openapi_url=None, docs_url=None, redoc_url=None)
        inner.router.routes.extend(Routes(self.sessions, options.access).all())
        self.inner = gr.mount_gradio_app(
            inner,
            page(options.sources),
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=theme(),
            head=HEAD,
        )
        self.app: ASGIApp = Guard(self.inner, options.access, options.hosts)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep_tidy())
        try:
            yield
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            await asyncio.to_thread(self.sessions.close)

    async def _keep_tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(self.sessions.tidy)
