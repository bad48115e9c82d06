"""`create_app`: the parts of a server, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from botwire import __version__
from botwire.errors import BotWireError, StoreUnavailable
from botwire.stores.base import AsyncStore, Store

from . import (
    conversations,
    execute,
    feed,
    health,
    home,
    items,
    moves,
    namespaces,
    openapi,
    problems,
    published,
    search,
    tracing,
)
from .doors import Door
from .gate import Gate
from .health import Health
from .logs import log
from .routing import places
from .service import Service
from .settings import Settings
from .threaded import as_async

DOORS: Sequence[Door] = (
    *items.doors,
    *conversations.doors,
    *search.doors,
    *feed.doors,
    *moves.doors,
    *namespaces.doors,
    *execute.doors,
    *published.doors,
    *home.doors,
)


def create_app(store: AsyncStore | Store, settings: Settings | None = None) -> FastAPI:
    """An ASGI app that serves a store. The store is yours to close.

    Mounted in another app it begins with its first request, for then nobody runs its lifespan; to have it end with the
    other, too, enter `app.router.lifespan_context(app)` in that one's lifespan.
    """
    service = Service(tracing.traced(as_async(store)), settings or Settings())
    running = Running(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await running.start()
        try:
            yield
        finally:
            await running.stop()

    app = FastAPI(
        title="botwire",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: problems.of_http},
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its spans would name what is stored
    )
    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to say what is described
    app.state.service = service
    app.state.importing = set()
    app.router.routes.extend(places(DOORS, service))
    app.add_middleware(Gate, service=service)
    app.add_middleware(Begin, running=running)
    running.health = health.install(app, service)
    return app


@cache
def described() -> dict[str, Any]:
    """The OpenAPI description; made when it is first asked for."""
    return openapi.document(DOORS)


class Running:
    """Starts the service once, however many ask for it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.health: Health | None = None
        self.started = False
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Have the service started."""
        async with self._lock:
            if not self.started:
                await self.service.start()
                self.started = True
                if self.health is not None:
                    self.health.started()

    async def stop(self) -> None:
        """Stop it, if it runs."""
        async with self._lock:
            if self.started:
                self.started = False
                if self.health is not None:
                    self.health.stop()
                await self.service.stop()


class Begin:
    """Starts the service with the first request, where no lifespan has."""

    def __init__(self, app: ASGIApp, running: Running) -> None:
        self.app = app
        self.running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to a service that runs."""
        if not self.running.started and scope["type"] == "http":
            try:
                await self.running.start()
            except BotWireError as error:
                log.error("the server cannot begin: %s", error)
                refusal = StoreUnavailable("this server cannot begin; its log says why")
                await problems.of_error(refusal, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)
