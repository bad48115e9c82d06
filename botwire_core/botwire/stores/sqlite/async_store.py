"""`AsyncSQLiteStore`: the twin of `SQLiteStore` for an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botwire.ops import Changes, Get, Op, Value

from .commits import Request
from .store import SQLiteStore, is_read_only

READERS = 4  # threads


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
        self._reader: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._pid = 0

    def _threads(self) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
        """Threads that read, and one that writes: long reads never hold up a write."""
        if self._reader is None or self._writer is None or self._pid != os.getpid():  # threads do not survive a fork
            self._pid, self._writing, self._pending, self._gate = os.getpid(), False, [], threading.Lock()
            self._reader = ThreadPoolExecutor(READERS, thread_name_prefix="botwire-read")
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="botwire-write")
        return self._reader, self._writer

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `SQLiteStore.execute`. A cancelled write may have been applied."""
        loop = asyncio.get_running_loop()
        if len(ops) == 1 and type(ops[0]) in (Value, Get) and self.store.reads_at_once:
            return self.store.execute(ops)
        reader, writer = self._threads()
        if is_read_only(ops):
            return await loop.run_in_executor(reader, self.store.execute, ops)
        request, done = Request(ops, request_id), loop.create_future()
        with self._gate:
            self._pending.append((request, done))
            start, self._writing = not self._writing, True
        if start:
            writer.submit(self._write_pending)
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
            except Exception as error:  # noqa: BLE001  # it is raised again where the write is awaited
                for request, _ in pending:
                    request.error = request.error or (None if request.done else error)
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
        for threads in (self._reader, self._writer):
            if threads is not None:
                threads.shutdown(wait=False)
        await asyncio.get_running_loop().run_in_executor(None, self.store.close)


def _resolve(done: asyncio.Future[None]) -> None:
    def finish() -> None:
        if not done.done():
            done.set_result(None)

    try:
        done.get_loop().call_soon_threadsafe(finish)
    except RuntimeError:  # the loop was closed while its write was under way: nobody is left to tell
        return
