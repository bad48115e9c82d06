"""`AsyncHTTPStore`: the twin of `HTTPStore` for an event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from typing import Any, TypeVar

from botwire.errors import StoreUnavailable
from botwire.ops import Changes, Op

from .calls import Call, Got, Listen, Send, Server, Step, Steps, attempts, listening
from .connections import AsyncConnections
from .lanes import Lane
from .store import HTTPStore, remade

T = TypeVar("T")


class AsyncHTTPStore:
    """The same store for an event loop, or several: each has connections of its own.

    Short calls that are made at the same time travel together, see `lanes`.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float | None = None) -> None:
        self.server = Server(url, api_key, timeout)
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_closed = False

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `HTTPStore.execute`. A cancelled write may have been applied."""
        call = Call(ops, request_id)
        line = self._lines.get(asyncio.get_running_loop()) or await self._new_line()
        return await line.make(call)

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `HTTPStore.wait`."""
        look = Changes(namespace, cursor, subtree, 1)
        if timeout > 0:
            line = self._lines.get(asyncio.get_running_loop()) or await self._new_line()
            found = await line.run(listening(self.server, namespace, cursor, monotonic() + timeout, subtree=subtree))
            if found is not None:
                return found
        return bool((await self.execute([look]))[0].changes)

    async def _new_line(self) -> Line:
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable(f"the store {self.server.url} is closed: open a new one")
            line = self._lines[asyncio.get_running_loop()] = Line(self.server)
        await line.open()
        return line

    def twin(self) -> HTTPStore:
        """The same server for threads, over connections of its own."""
        server = self.server
        return HTTPStore(server.url, api_key=server.api_key, timeout=server.timeout)

    async def close(self) -> None:
        """Close the connections, those of other event loops too."""
        with self._lock:
            self._is_closed = True
            lines = dict(self._lines)
        for loop, line in lines.items():
            if loop is asyncio.get_running_loop():
                await line.close()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(line.close(), loop)

    def __reduce__(self) -> tuple[Any, ...]:
        return remade, (type(self), self.server.url, self.server.api_key, self.server.timeout)

    def __repr__(self) -> str:
        return f"AsyncHTTPStore({self.server.url!r})"


class Line:
    """What one event loop has of a store: connections, and lanes in which short calls travel."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections = AsyncConnections(server)
        self._reads = Lane(server, self.run)
        self._writes = Lane(server, self.run)  # apart: no read is to wait for a commit
        self._end: AsyncGenerator[None] = _closing(self._connections)

    async def open(self) -> None:
        """Have the connections closed when the loop ends or the store is forgotten: see `_closing`."""
        await anext(self._end)

    async def make(self, call: Call) -> list[Any]:
        """Make a call, if it is short together with others."""
        if call.is_short:
            return await (self._writes if call.writes else self._reads).join(call)
        outcome = await self.run(attempts(call, self._server, monotonic() + self._server.timeout))
        return call.concluded(outcome, self._server)

    async def run(self, steps: Steps[T]) -> T:
        """Do what the steps say."""
        got: Got = None
        while True:
            try:
                step = steps.send(got)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # the T of the steps
            got = await self._do(step)

    async def _do(self, step: Step) -> Got:
        if isinstance(step, Send):
            return await self._connections.send(step.request, step.deadline)
        if isinstance(step, Listen):
            return await self._connections.listen(step.request, step.deadline)
        await self._connections.sleep(step.seconds)
        return None

    async def close(self) -> None:
        """Close the connections; whoever still waits is told."""
        await self._connections.close()
        await self._end.aclose()


async def _closing(connections: AsyncConnections) -> AsyncGenerator[None]:
    """Close the connections in the end.

    A generator that has begun is ended by its event loop, when the loop ends or when nobody has the generator any
    more. So a store that nobody closes leaves no open connections behind.
    """
    try:
        yield
    finally:
        await connections.close()
