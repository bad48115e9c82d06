"""An app as tests ask it without a server process: quick, for whatever needs no real connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from botwire.stores.sqlite import SQLiteStore
from botwire_server import Settings, create_app

UNSAID: Any = object()
NS = "/v1/namespaces/n"


class App:
    """An app, and a client of it on this machine."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client

    async def ask(self, method: str, path: str, body: Any = UNSAID, **headers: str) -> httpx.Response:
        """A request. A body that is not bytes is sent as JSON; of a header's name `_` is `-`."""
        content = None if body is UNSAID else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, content=content, headers=sent)

    async def get(self, path: str, **headers: str) -> Any:
        """What is at a path."""
        answer = await self.ask("GET", path, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, key: str, value: Any, namespace: str = "n", **fields: Any) -> httpx.Response:
        """A key set."""
        answer = await self.ask("PUT", f"/v1/namespaces/{namespace}/items/{key}", {"value": value, **fields})
        assert answer.status_code in (200, 201), answer.text
        return answer


@asynccontextmanager
async def asking(store: Any = None, settings: Settings | None = None, root: str = "") -> AsyncIterator[App]:
    """An app over a store, in memory if none is said."""
    own: Any = SQLiteStore(":memory:") if store is None else None
    app = create_app(own if store is None else store, settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1), root_path=root)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield App(app, client)
    if own is not None:
        own.close()


def refused(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Check that an answer is a problem of this status, with these words in it. Returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in problem["detail"], problem
    return problem
