"""Running the HTTP server: it listens, says where, and ends well when it is told to."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

from botwire.errors import BotWireError, InvalidInput

from .web import PATH, create_app, is_loopback

import uvicorn  # isort: skip  # the SDK brings it; after .web, which says how to install that

SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
GRACE: Final = 10  # seconds that requests under way have when it is told to stop


class Listen(NamedTuple):
    """Where to listen, and how."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure_http: bool = False


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """End well on a signal; uvicorn's own has the process die of it afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve_http(namespace: str, url: str | None, listen: Listen, *, read_only: bool = False) -> None:
    """Serve until told to stop. Raises a `BotWireError` if it cannot begin."""
    _check_open(listen)
    app = create_app(namespace, url=url, host=listen.host, allowed_hosts=listen.allowed_hosts, read_only=read_only)
    with closing(_listening(listen)) as listening:
        asyncio.run(_run(app, listen, listening))


async def _run(app: Any, listen: Listen, listening: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        lifespan="off",  # it is run here, so that its errors are told as ours are
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
        timeout_graceful_shutdown=GRACE,
    )
    try:
        config.load()
    except OSError as error:  # ssl's errors are among them
        raise InvalidInput(f"the certificate or its key cannot be used: {error}") from error
    async with app.router.lifespan_context(app):
        _say_hello(listen, listening.getsockname()[1])
        await _Server(config).serve([listening])


def _check_open(listen: Listen) -> None:
    if (listen.tls_cert is None) != (listen.tls_key is None):
        raise InvalidInput("TLS needs both --tls-cert and --tls-key")
    if not is_loopback(listen.host) and listen.tls_cert is None and not listen.insecure_http:
        raise InvalidInput(
            f"on {listen.host} API keys would travel in the open: give --tls-cert and --tls-key, or listen on "
            "127.0.0.1 behind a proxy that does TLS (--allowed-hosts NAME), or say --insecure-http in a private network"
        )


def _listening(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family)
    except OSError as error:
        raise BotWireError(
            f"cannot listen on {listen.host} port {listen.port} ({error.strerror or error}): name another with --http"
        ) from error


def _say_hello(listen: Listen, port: int) -> None:
    """Say where it is: to people on stderr, to a program that started it one line of JSON on stdout."""
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    url = f"{'https' if listen.tls_cert else 'http'}://{host}:{port}{PATH}"
    sys.stderr.write(f"botwire serves MCP at {url}\n")
    sys.stderr.flush()
    if not sys.stdout.isatty():
        sys.stdout.write(json.dumps({"event": "ready", "url": url}) + "\n")
        sys.stdout.flush()
