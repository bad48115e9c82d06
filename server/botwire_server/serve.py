"""Running a server: it opens the store, listens, and ends well when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Mapping
from contextvars import Context
from functools import partial
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
from .listening import Listening, check_open, load_certificate, tls_context, why_not, within_file_limit
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
        port = sockets[0].getsockname()[1]
        when_started = partial(say_hello, settings, place, service, port)
        server = Server(_config(app, settings, bounds, tls), settings, when_started)
        stop = partial(_stop, server, app)
        watch = asyncio.get_running_loop().create_task(bounds.watch(server.server_state.connections))
        try:
            _be_quick()
            with _signals(stop, tls, settings):
                async with app.router.lifespan_context(app):
                    await server.serve(sockets)
        finally:
            watch.cancel()
            close_refused(bounds)
    log.info("stopped")


def _be_quick() -> None:
    """Spare requests what would hold them up, measured by `benchmarks/server.py`."""
    gc.collect()
    gc.freeze()  # what is there now stays: a full collection need not walk through the web framework's objects
    sys.setswitchinterval(0.0005)  # seconds: a thread that reads must not keep the event loop waiting for 5 ms


# ── the web server ──────────────────────────────────────────────────────────────────────────────────


class Server(uvicorn.Server):
    """uvicorn's, without its signal handlers: they would have the process end as if it had been killed."""

    def __init__(self, config: uvicorn.Config, settings: Settings, when_started: Callable[[], None]) -> None:
        super().__init__(config)
        self.settings = settings
        self.when_started = when_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another one that began at the same moment was faster
            raise why_not(error, self.settings) from error
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


def _stop(server: Server, app: FastAPI, number: int) -> None:
    """Have the server end, and its streams; called on the event loop."""
    fields = {"signal": signal.Signals(number).name, "connections": len(server.server_state.connections)}
    log.info("stopping", extra={"fields": fields})
    server.should_exit = True
    app.state.health.stop()


@contextlib.contextmanager
def _signals(stop: Callable[[int], None], tls: ssl.SSLContext | None, settings: Settings) -> Generator[None]:
    """Heed signals: the first has the server end well, the second one at once."""
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
