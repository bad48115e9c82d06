"""Running a server: it opens the store, listens, and ends well when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Callable, Generator, Mapping
from contextvars import Context
from types import FrameType
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from botwire.errors import InvalidInput

from . import logs
from .app import create_app
from .connections import KEEP_ALIVE, Bounds, close_refused
from .hello import say_hello
from .hot import HotProtocol
from .keys import startup_check
from .limits import apply_quotas
from .listening import Listening, check_open, load_certificate, tls_context, within_file_limit
from .logs import log
from .places import Place, opened, what_to_serve
from .service import Service
from .settings import Settings

BACKLOG: Final = 2_048  # connections that the system holds until they are taken
SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))


def serve(settings: Settings, environ: Mapping[str, str]) -> int:
    """Serve until told to stop. Returns the exit code. Raises a `BotWireError` if it cannot begin."""
    logs.configure(settings)
    check_open(settings)
    place = what_to_serve(settings, environ)
    tls = tls_context(settings)
    settings = within_file_limit(settings)
    with contextlib.closing(Listening(settings)) as listening:
        factory = uvicorn.Config("", log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_run(settings, place, tls, listening.sockets))
    return 0


async def _run(settings: Settings, place: Place, tls: ssl.SSLContext | None, sockets: list[socket.socket]) -> None:
    async with opened(place.address) as store:
        app = create_app(store, settings)
        service: Service = app.state.service
        if place.file is not None:
            service.metrics.held.file = place.file
        await service.keyring.load()
        startup_check(settings, service.keyring)
        await apply_quotas(store, settings)
        bounds = Bounds(settings, service.metrics)
        server = Server(_config(app, settings, bounds, tls))
        server.when_started = lambda: say_hello(settings, place, service, sockets[0].getsockname()[1])
        stop = _Stop(server, app)
        watch = asyncio.get_running_loop().create_task(bounds.watch(server.server_state.connections))
        try:
            with _signals(stop, tls, settings):
                async with app.router.lifespan_context(app):
                    await server.serve(sockets)
        finally:
            watch.cancel()
            close_refused(bounds)
    log.info("stopped")


# ── the web server ──────────────────────────────────────────────────────────────────────────────────


class Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: they would have the process end as if it had been killed."""

    when_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to `serve`."""
        yield


def _config(app: FastAPI, settings: Settings, bounds: Bounds, tls: ssl.SSLContext | None) -> uvicorn.Config:
    shared = {"bounds": bounds, "service": app.state.service}
    return uvicorn.Config(
        app,
        http=type("Served", (HotProtocol,), shared),
        ws="none",
        lifespan="off",  # it is run here, so that its errors are told as ours are
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the gate heeds them, of trusted proxies
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=cast("int", settings.shutdown_timeout),  # parts of a second are fine with it
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────


class _Stop:
    """The first signal has the server end well, the second one at once."""

    def __init__(self, server: Server, app: FastAPI) -> None:
        self.server = server
        self.app = app

    def __call__(self, number: int) -> None:
        """Stop, on the event loop."""
        name = signal.Signals(number).name
        log.info(
            "stopping", extra={"fields": {"signal": name, "connections": len(self.server.server_state.connections)}}
        )
        self.server.should_exit = True
        self.app.state.health.stop()


@contextlib.contextmanager
def _signals(stop: _Stop, tls: ssl.SSLContext | None, settings: Settings) -> Generator[None]:
    """Heed signals; those that come before or after are the system's."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if seen:  # what is committed stays; what is under way is rolled back by the next to open the file
            os._exit(128 + number)
        seen.append(number)
        loop.call_soon_threadsafe(stop, number, context=Context())  # of no request

    def renew(_number: int, _frame: FrameType | None) -> None:
        if tls is not None:
            loop.call_soon_threadsafe(_renew, tls, settings, context=Context())

    before = {number: signal.signal(number, end) for number in SIGNALS}
    if tls is not None and hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, renew)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _renew(tls: ssl.SSLContext, settings: Settings) -> None:
    """Read the certificate again; if it cannot be used, the old one stays."""
    try:
        load_certificate(tls, settings)
    except InvalidInput as error:
        log.error("the certificate was not renewed: %s", error)
    else:
        log.info("the certificate was read again")
