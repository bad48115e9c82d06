"""`AsyncSQLiteStore`: the twin of `SQLiteStore` for an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botwire.errors import BotWireError
from botwire.ops import Changes, Get, Op, Value

from .commits import Request
from .store import SQLiteStore, is_read_only


class AsyncSQLiteStore:
    """The same store for an event loop.

    Single gets run in place: they are faster than a change of threads. Everything else runs on threads, and
    writes that come at the same time share a commit.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self._pending: list[tuple[Request, asyncio.Future[None]]] = []
        self._gate = threading.Lock()
        self._writing = False
        self._threads: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None or self._pid != os.getpid():  # threads do not survive a fork
            self._pid, self._writing, self._pending, self._gate = os.getpid(), False, [], threading.Lock()
            self._threads = ThreadPoolExecutor(4, thread_name_prefix="botwire")
        return self._threads

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `SQLiteStore.execute`. A cancelled write may have been applied."""
        loop = asyncio.get_running_loop()
        if len(ops) == 1 and type(ops[0]) in (Value, Get) and not self.store.in_memory:
            return self.store.execute(ops)
        if is_read_only(ops):
            return await loop.run_in_executor(self._pool(), self.store.execute, ops)
        pool = self._pool()
        request, done = Request(ops, request_id), loop.create_future()
        with self._gate:
            self._pending.append((request, done))
            start, self._writing = not self._writing, True
        if start:
            pool.submit(self._write_pending)
        await done
        if request.error is not None:
            raise request.error
        return request.results

    def _write_pending(self) -> None:
        """Commit what has gathered, until nothing has."""
        while True:
            with self._gate:
                pending, self._pending = self._pending, []
                if not pending:
                    self._writing = False
                    return
            try:
                self.store.submit([request for request, _ in pending])
            except BotWireError as error:
                for request, _ in pending:
                    request.error = error
            for _, done in pending:
                _resolve(done)

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `SQLiteStore.wait`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        changed = asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        with self.store.signals.registered(namespace, wake, subtree=subtree):
            while True:
                changed.clear()
                page = (await self.execute([Changes(namespace, cursor, subtree=subtree, limit=1)]))[0]
                if page.changes:
                    return True
                try:
                    await asyncio.wait_for(changed.wait(), max(0.0, deadline - loop.time()))
                except TimeoutError:
                    return False

    async def close(self) -> None:
        """Close the file."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        await asyncio.get_running_loop().run_in_executor(None, self.store.close)


def _resolve(done: asyncio.Future[None]) -> None:
    def finish() -> None:
        if not done.done():
            done.set_result(None)

    try:
        done.get_loop().call_soon_threadsafe(finish)
    except RuntimeError:  # the loop was closed while its write was under way: nobody is left to tell
        return
