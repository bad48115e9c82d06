"""OpenTelemetry spans, if the program that runs the server has set a tracer up: one for each request, one for each
`execute` with the kinds of its ops. Never names, values or API keys.

`opentelemetry` is not a dependency, and is not imported here unless somebody else has: `opentelemetry-instrument
botwire serve …` does, and so does an app of yours that embeds the server.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from botwire import __version__
from botwire.errors import BotWireError
from botwire.ops import Op
from botwire.stores.base import AsyncStore

from .metrics import KINDS, outcome_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MANY: Final = 20  # kinds of ops that a span names


def tracer() -> Tracer | None:
    """The tracer to use; `None` when nobody has set one up."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider | api.NoOpTracerProvider):
        return None
    found: Tracer = api.get_tracer("botwire.server", __version__)
    return found


def traced(store: AsyncStore) -> AsyncStore:
    """The store, with a span round each `execute`; the store itself when nobody has set a tracer up."""
    found = tracer()
    return store if found is None else TracedStore(store, found)


class TracedStore:
    """A store around a store: `execute` is a span."""

    def __init__(self, store: AsyncStore, tracer: Tracer) -> None:
        self.store = store
        self.tracer = tracer

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `AsyncStore.execute`."""
        kinds = [KINDS.get(type(op), "unknown") for op in ops]
        about: Any = {"botwire.ops": list(dict.fromkeys(kinds))[:MANY], "botwire.op_count": len(kinds)}
        name = f"execute {kinds[0]}" if len(kinds) == 1 else "execute batch"
        with self.tracer.start_as_current_span(
            name, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await self.store.execute(ops, request_id=request_id)
            except BotWireError as error:  # its text may hold names: the kind of error must do
                span.set_attribute("error.type", outcome_of(error))
                raise

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `AsyncStore.wait`; without a span, for it lasts as long as nothing happens."""
        return await self.store.wait(namespace, cursor, timeout, subtree=subtree)

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        await self.store.close()


class RequestSpans:
    """ASGI middleware: a span for each request, a child of the caller's if that sent one (`traceparent`)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, inside a span."""
        found = tracer()
        if scope["type"] != "http" or found is None:
            await self.app(scope, receive, send)
            return
        from opentelemetry import propagate, trace

        route = door(scope.get("raw_path") or scope["path"].encode())
        parent = propagate.extract(
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        )
        with found.start_as_current_span(
            f"{scope['method']} {route}",
            parent,
            trace.SpanKind.SERVER,
            {"http.request.method": scope["method"], "http.route": route},
            record_exception=False,
        ) as span:

            async def note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(trace.StatusCode.ERROR)
                await send(message)

            try:
                await self.app(scope, receive, note)
            finally:
                if (request_id := scope.get("botwire.request_id")) is not None:
                    span.set_attribute("botwire.request_id", request_id)


_WORDS: Final = {
    *("", "v1", "memory", "namespaces", "items", "conversations", "messages", "changes", "export", "import", "execute"),
    *("batches", "erase", "history", "undo", "trim", "search", "healthz", "readyz", "metrics", "openapi.json"),
}


def door(path: bytes) -> str:
    """A path without what it names.

    >>> door(b"/v1/namespaces/acme%2Fuser-42/items/coffee")
    '/v1/namespaces/{}/items/{}'
    """
    return "/".join(part if part in _WORDS else "{}" for part in path.decode("latin-1").split("/"))
