"""`AsyncSQLiteStore`: the twin of `SQLiteStore` for an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from botwire.ops import Changes, Get, Op, Value

from .commits import Request
from .store import SQLiteStore, is_read_only

READERS = 4  # threads
CROWD_PART = 0.25  # of a commit's time: so long the next one waits for those whom this one has set free

Done = Callable[[Request], object]
"""What is told, in its event loop, that a request is done; it holds results or an error."""


class AsyncSQLiteStore:
    """The same store for an event loop.

    Single gets run in place: they are faster than a change of threads. Everything else runs on threads, and
    writes that come at the same time share a commit, and one waking of the loop.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self._closed = False
        self._start()

    def _start(self) -> None:
        """The state of a store that has run nothing yet, also after a fork: threads do not survive one."""
        self._pid = os.getpid()
        self._pending: list[tuple[Request, Done, AbstractEventLoop]] = []
        self._gate = threading.Condition(threading.Lock())
        self._crowd = 0  # how many requests there were at the last commit, in it or waiting
        self._writing = False
        self._starter: AbstractEventLoop | None = None  # the loop that is about to start the writing
        # Threads that read, and one that writes: long reads never hold up a write. They start when they are needed.
        self._reader = ThreadPoolExecutor(READERS, thread_name_prefix="botwire-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="botwire-write")

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `SQLiteStore.execute`. A cancelled write may have been applied."""
        if len(ops) == 1 and type(ops[0]) in (Value, Get) and self.store.reads_at_once:
            return self.store.execute(ops)
        loop = asyncio.get_running_loop()
        if is_read_only(ops):
            self._check()
            return await loop.run_in_executor(self._reader, self.store.execute, ops)
        done: asyncio.Future[Request] = loop.create_future()
        self.submit(Request(ops, request_id), partial(_settle, done))
        request = await done
        if request.error is not None:
            raise request.error
        return request.results

    def submit(self, request: Request, done: Done) -> None:
        """Have a write committed with others that come at the same time, then `done` called; for a running loop.

        What `execute` awaits, without a future: for callers that answer thousands of writes a second.
        """
        self._check()
        loop = asyncio.get_running_loop()
        with self._gate:
            self._pending.append((request, done, loop))
            if len(self._pending) == self._crowd:
                self._gate.notify()
            if self._writing or self._starter is loop:
                return
            self._starter = loop  # another loop, which should have started, may have been stopped for good
        loop.call_soon(self._start_writing)  # not at once: what the loop has received by now shares the commit

    def _check(self) -> None:
        if self._pid != os.getpid():
            self._start()
        if self._closed:
            self.store.open()  # says that it is closed

    def _start_writing(self) -> None:
        with self._gate:
            self._starter = None
            start, self._writing = not self._writing, True
            if start and not self._closed:
                self._writer.submit(self._write_pending)
                return
        if start:
            self._write_pending()  # in vain: everybody is told that the store is closed

    def _write_pending(self) -> None:
        """Commit what has gathered, until nothing has."""
        patience = 0.0
        while group := self._gather(patience):
            begun = time.perf_counter()
            self._write([request for request, _, _ in group])
            patience = (time.perf_counter() - begun) * CROWD_PART
            self._crowd = len(group) + len(self._pending)
            for loop in {loop for _, _, loop in group}:
                _tell(loop, [(request, done) for request, done, its_loop in group if its_loop is loop])

    def _gather(self, patience: float) -> list[tuple[Request, Done, AbstractEventLoop]]:
        """Take what is pending, after giving those who have just been answered a moment to come back.

        On a slow disk all of them then share one commit, and do not take turns in two halves.
        """
        with self._gate:
            self._gate.wait_for(lambda: len(self._pending) >= self._crowd, patience)
            group, self._pending = self._pending, []
            self._writing = bool(group)
            return group

    def _write(self, requests: list[Request]) -> None:
        try:
            self.store.submit(requests)
        except Exception as error:  # noqa: BLE001  # it is raised again where the write is awaited
            for request in requests:
                request.error = request.error or (None if request.done else error)

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
                    async with asyncio.timeout_at(deadline):  # wait_for of Python 3.11 can lose a cancellation
                        await changed.wait()
                except TimeoutError:
                    return False

    def twin(self) -> SQLiteStore:
        """The same store for threads."""
        return self.store

    async def close(self) -> None:
        """Close the file."""
        with self._gate:
            self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self.store.close)
        for threads in (self._reader, self._writer):
            threads.shutdown(wait=False)


def _tell(loop: AbstractEventLoop, group: list[tuple[Request, Done]]) -> None:
    """Have everybody in the group told in their event loop: one waking for all of them."""

    def tell() -> None:
        for request, done in group:
            done(request)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop was closed while its write was under way: nobody is left to tell
        return


def _settle(done: asyncio.Future[Request], request: Request) -> None:
    if not done.done():  # its task was cancelled
        done.set_result(request)
