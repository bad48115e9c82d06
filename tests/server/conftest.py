"""What the tests of the server share: servers to talk to, in a process of their own or in this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.running import Start, starting

from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings, create_app


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Start]:
    """Start `botwire serve` with these options, in a process of its own: `server("--keys", "off").url`.

    It keeps its memories in `memory.db` of the test's folder, unless `--store` says otherwise, and ends with the test.
    """
    with starting(tmp_path) as start:
        yield start


@pytest.fixture
def start(server: Start) -> Start:
    """The same, where what it starts is called `server`."""
    return server


@pytest.fixture
async def app_client(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Make a client of an app in this process: `client = await app_client(free_tier=True)`."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> httpx.AsyncClient:
            store = AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed"))
            stack.push_async_callback(store.close)
            app = create_app(store, Settings(**settings))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))

        yield make
