"""Streamable HTTP: an ASGI application with one endpoint, `/mcp`, that lets in whom it should.

A memory on a server: the caller's own API key goes on to that server, which enforces scope and access. A memory in a
file has no keys, so only programs of this machine are let in.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from botwire import AsyncMemory
from botwire.errors import (
    AccessDenied,
    BotWireError,
    InvalidInput,
    NotAuthenticated,
    RateLimited,
    StoreError,
)
from botwire.ops import Describe

from .answers import check
from .callers import Callers
from .sdk import StreamableHTTPSessionManager
from .server import server_over

# The SDK brings it; after .sdk, which says how to install that.
from starlette.applications import Starlette  # isort: skip
from starlette.requests import Request  # isort: skip
from starlette.responses import JSONResponse  # isort: skip
from starlette.routing import Route  # isort: skip
from starlette.types import ASGIApp, Receive, Scope, Send  # isort: skip

PATH: Final = "/mcp"
LOCAL: Final = ("127.0.0.1", "localhost", "::1")
MEMORY: Final = "botwire.memory"  # where a request's scope holds the memory that it is about

_KEYS: Final = ".botwire/keys"  # where a store holds its API keys
_NO_KEY: Final = "bw_000000000000_0"  # a key that no server knows
_is_key = re.compile(r"bw_[A-Za-z0-9_-]+").fullmatch
_STATUS: Final[dict[type[BotWireError], int]] = {
    NotAuthenticated: 401,
    AccessDenied: 403,
    RateLimited: 429,
    StoreError: 503,
}


class Behind(NamedTuple):
    """The memory behind the endpoint, and who may reach it."""

    namespace: str
    url: str | None
    """Where it is kept; `None` is the default file."""
    exposed: bool
    """Whether others than this machine reach the endpoint."""

    @property
    def is_server(self) -> bool:
        """Whether a botwire server is behind, which knows keys."""
        return self.url is not None and self.url.startswith(("http://", "https://"))

    @property
    def needs_key(self) -> bool:
        """Whether every request must bring a key. This process's own key is never lent to callers."""
        return self.exposed or (self.is_server and bool(os.environ.get("BOTWIRE_API_KEY")))

    def memory(self, key: str | None) -> AsyncMemory:
        """The memory as the holder of a key sees it."""
        return AsyncMemory(self.namespace, self.url, api_key=key)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def create_app(
    namespace: str = "default",
    *,
    url: str | None = None,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    read_only: bool = False,
) -> Starlette:
    """An ASGI application that serves a memory at `/mcp`.

    Args:
        namespace: whose memory it is.
        url: where it is kept; by default `BOTWIRE_URL`, else a file in the user's data directory.
        host: where the application listens. Beyond loopback a server with API keys has to be behind it.
        allowed_hosts: further host names that clients call it by, those of a proxy for instance.
        read_only: leave out the tools that change something.

    It refuses to start where it would be open to whom it should not be.

    """
    url = os.environ.get("BOTWIRE_URL") if url is None else url
    behind = Behind(namespace, url, exposed=not is_loopback(host) or bool(allowed_hosts))
    behind.memory(None)  # bad names and URLs are refused here
    if behind.exposed and not behind.is_server:
        raise InvalidInput(
            "a file has no API keys, so only this machine may reach it: listen on 127.0.0.1 without allowed hosts, or "
            "run `botwire serve` and give its URL with --url"
        )
    callers = Callers(behind.memory)
    server = server_over(lambda request: request.scope[MEMORY], read_only=read_only)
    manager = StreamableHTTPSessionManager(
        server,
        json_response=True,  # nothing here streams
        stateless=True,  # each request stands for itself, with its own key
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        await startup_check(behind)
        async with manager.run():
            yield
        await callers.close()

    known = frozenset([*LOCAL, host.strip("[]"), *map(_host, allowed_hosts)])
    names = None if behind.exposed and not allowed_hosts else known
    gate = _Gate(behind, callers, manager.handle_request, names)
    return Starlette(routes=[Route(PATH, gate, methods=["POST"])], lifespan=lifespan)


def _host(name: str) -> str:
    """A host name as requests are compared with it: "Example.com:443" is example.com."""
    try:
        found = urlsplit(f"//{name.strip()}").hostname
    except ValueError:
        found = None
    if not found:
        raise InvalidInput(f"{name!r} is no host name: write it as in a URL, such as memory.example.com")
    return found


async def startup_check(behind: Behind) -> None:
    """Raise `InvalidInput` if the endpoint would be open to whom it should not be."""
    if not behind.is_server:
        async with AsyncMemory(_KEYS, behind.url) as keys:
            if (await keys.ask(Describe(_KEYS))).version:
                raise InvalidInput(
                    "this file has API keys, and who comes over HTTP would get round them: run `botwire serve` on it "
                    "and give its URL with --url, or leave out --http"
                )
    elif behind.exposed:
        try:
            async with behind.memory(_NO_KEY) as memory:
                await check(memory)
        except NotAuthenticated:
            return
        raise InvalidInput(
            "the server behind wants no API key, so everybody would get in: make one with `botwire keys create --name "
            "NAME` (and leave out --keys off there), or listen on 127.0.0.1"
        )


class _Gate:
    """Finds out who asks before anything else is read."""

    def __init__(self, behind: Behind, callers: Callers, app: ASGIApp, names: frozenset[str] | None) -> None:
        self._behind = behind
        self._callers = callers
        self._app = app
        self._names = names
        """What a request's `Host` may name; `None` is anything: where everybody brings a key, no page can."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = Request(scope)
            self._keep_pages_out(request)
            key = self._key(request)
        except BotWireError as error:
            await _refused(error)(scope, receive, send)
            return
        async with self._callers.memory(key) as memory:
            try:
                if self._behind.is_server:
                    await check(memory)
            except BotWireError as error:
                self._callers.drop(key)  # made-up keys shall not hold connections, nor push others out
                await _refused(error)(scope, receive, send)
                return
            scope[MEMORY] = memory
            await self._app(scope, receive, send)

    def _keep_pages_out(self, request: Request) -> None:
        """Raise `AccessDenied` for what web pages send, those included whose name points here (DNS rebinding)."""
        if "origin" in request.headers:
            raise AccessDenied("web pages are not let in: this request bears an Origin")
        if self._names is None:
            return
        host = request.headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in self._names:
            raise AccessDenied(f"{host!r} is no name of this server: --allowed-hosts names more")

    def _key(self, request: Request) -> str | None:
        """The caller's key. Raises `NotAuthenticated` where one is needed, or none is known."""
        given = request.headers.getlist("authorization")
        if not given:
            if self._behind.needs_key:
                raise NotAuthenticated("send your botwire API key as `Authorization: Bearer bw_…`")
            return None
        if not self._behind.is_server:
            raise NotAuthenticated("this memory is a file, which has no API keys: leave out the header Authorization")
        scheme, _, key = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or _is_key(key.strip()) is None:
            raise NotAuthenticated("the header Authorization must be `Bearer bw_…`, once")
        return key.strip()


def _refused(error: BotWireError) -> JSONResponse:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    problem: dict[str, Any] = {"code": -32_000, "message": str(error)}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": problem}, status, headers)
