"""Whether the server is alive, ready, or about to stop; and the doors `/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from botwire.errors import BotWireError, StoreUnavailable
from botwire.ops import Changes, Describe

from . import guard, problems, tracing
from .logs import AccessLog, log

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from .service import Service

PATIENCE: Final = 5.0  # seconds within which a store must answer to count as ready
MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"  # of /metrics


class Health:
    """What the server is doing, and who must be told when it stops. Lives on the server's event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.state: Literal["starting", "ready", "stopping"] = "starting"
        self._ends: dict[object, Callable[[], object]] = {}

    @property
    def is_stopping(self) -> bool:
        """Whether no long answers should be begun any more."""
        return self.state == "stopping"

    def started(self) -> None:
        """From now on `/readyz` says yes."""
        self.state = "ready"
        log.addHandler(self.service.metrics.errors)

    def stop(self) -> None:
        """From now on `/readyz` says no; every stream is told to end. Doing it twice is harmless."""
        self.state = "stopping"
        log.removeHandler(self.service.metrics.errors)
        ends, self._ends = list(self._ends.values()), {}
        for end in ends:
            end()

    @contextmanager
    def stream(self, end: Callable[[], object]) -> Generator[None]:
        """While a long answer is open: `end` is called once, on the event loop, when the server stops."""
        if self.is_stopping:
            raise StoreUnavailable("the server is stopping: connect again in a moment")
        token = object()
        self._ends[token] = end
        self.service.metrics.streams += 1
        try:
            yield
        finally:
            self.service.metrics.streams -= 1
            self._ends.pop(token, None)

    async def check(self) -> None:
        """Raise a `BotWireError` unless the server takes requests and its store answers."""
        if self.state != "ready":
            raise StoreUnavailable(f"the server is {self.state}")
        try:
            async with asyncio.timeout(PATIENCE):
                await self.service.store.execute([Changes("", None, True, 1)])
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer within {PATIENCE:g} seconds") from None


def install(app: FastAPI, service: Service) -> Health:
    """Add the doors and the outermost middlewares. What `create_app` calls last."""
    health = app.state.health = Health(service)

    async def alive(_: Request) -> Response:
        return _answer(b'{"status":"ok"}')

    async def ready(request: Request) -> Response:
        try:
            await health.check()
        except BotWireError as error:
            return problems.of_error(error, request.scope)
        return _answer(b'{"status":"ready"}')

    async def metrics(request: Request) -> Response:
        try:
            address = request.client.host if request.client else ""
            principal = service.identify(request.headers.get("authorization"), address)
            guard.check(principal, [Describe("")])  # the figures are of the whole store
            body = await service.metrics.render(service.store)
        except BotWireError as error:
            return problems.of_error(error, request.scope)
        return _answer(body, MEDIA)

    app.add_route("/healthz", alive, ["GET", "HEAD"], include_in_schema=False)
    app.add_route("/readyz", ready, ["GET", "HEAD"], include_in_schema=False)
    if service.settings.metrics:
        app.add_route("/metrics", metrics, ["GET", "HEAD"], include_in_schema=False)
    if tracing.tracer() is not None:
        app.add_middleware(tracing.RequestSpans)
    if service.settings.access_log:
        app.add_middleware(AccessLog)
    return health


def _answer(body: bytes, media: str = "application/json") -> Response:
    from starlette.responses import Response

    return Response(body, media_type=media)
