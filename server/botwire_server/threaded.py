"""Any store for an event loop: itself if it is made for one, its twin if it has one, else on threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

from botwire.ops import Op
from botwire.stores.base import AsyncStore, Store

WORKERS: Final = 8  # threads that run ops
WAITERS: Final = 32  # threads that wait for changes: with more streams than that, they take turns
SLICE: Final = 1.0  # seconds that one turn of waiting lasts: a blocked thread cannot be told to stop


def as_async(store: AsyncStore | Store) -> AsyncStore:
    """The store for an event loop."""
    if inspect.iscoroutinefunction(store.execute):
        return cast("AsyncStore", store)
    from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore  # not needed by a server of another store

    if isinstance(store, SQLiteStore):
        return AsyncSQLiteStore(store)
    return Threaded(cast("Store", store))


class Threaded:
    """A sync store, run on threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="botwire-store")
        self._waiters = ThreadPoolExecutor(WAITERS, thread_name_prefix="botwire-wait")

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """As `AsyncStore.execute`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._workers, lambda: self.store.execute(ops, request_id=request_id)
        )

    async def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        """As `AsyncStore.wait`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout

        def look() -> bool:
            left = min(SLICE, max(0.0, deadline - loop.time()))
            return self.store.wait(namespace, cursor, left, subtree=subtree)

        while not await loop.run_in_executor(self._waiters, look):
            if loop.time() >= deadline:
                return False
        return True

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        self._workers.shutdown(wait=False)
        self._waiters.shutdown(wait=False)
        await asyncio.to_thread(self.store.close)
