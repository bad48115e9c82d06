"""Every store that the contract tests run over, and the clock that they go by.

A new store is one more entry of `STORES`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from tests import http_stores

from botwire.ops import Op, moment
from botwire.stores.base import AsyncStore, Store
from botwire.stores.http import AsyncHTTPStore, HTTPStore
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore

T = TypeVar("T")


class Clock:
    """Microseconds since 1970, moved by hand. It begins on 2023-11-14 at 22:13:20 UTC."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self._place = memoryview(bytearray(8)).cast("q")
        self.now = now

    @property
    def now(self) -> int:
        """Microseconds since 1970."""
        return self._place[0]

    @now.setter
    def now(self, microseconds: int) -> None:
        self._place[0] = microseconds

    def move_to(self, place: memoryview[int]) -> None:
        """Keep the time there from now on: where another process can look at it."""
        place[0] = self.now
        self._place = place

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float = 0, *, days: float = 0) -> None:
        """Let time pass."""
        self.now += round((seconds + days * 86_400) * 1_000_000)

    @property
    def at(self) -> datetime:
        """The time now, as an aware datetime."""
        return moment(self.now)

    def ago(self, seconds: float) -> datetime:
        """The time some seconds ago."""
        return self.at - timedelta(seconds=seconds)


class OnLoop:
    """An async store as a `Store`: it lives on an event loop in a thread of its own."""

    def __init__(self, make: Callable[[], AsyncStore]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop of a store", daemon=True)
        self._thread.start()
        self.inner = make()
        self._closed = False

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        return self._await(self.inner.execute(ops, request_id=request_id))

    def wait(self, namespace: str, cursor: str, timeout: float, *, subtree: bool = False) -> bool:
        return self._await(self.inner.wait(namespace, cursor, timeout, subtree=subtree))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._await(self.inner.close())
        self._await(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


MakeStore = Callable[[Path, Clock], Store]

# Relaxed: what these tests state does not depend on fsync; what does is tested with crashes elsewhere.
STORES: dict[str, MakeStore] = {
    "file": lambda path, clock: SQLiteStore(str(path), durability="relaxed", clock=clock),
    "memory": lambda _, clock: SQLiteStore(":memory:", clock=clock),
    "file-async": lambda path, clock: OnLoop(
        lambda: AsyncSQLiteStore(SQLiteStore(str(path), durability="relaxed", clock=clock))
    ),
    "memory-async": lambda _, clock: OnLoop(lambda: AsyncSQLiteStore(SQLiteStore(":memory:", clock=clock))),
    "http": lambda _, clock: http_stores.served(":memory:", clock, HTTPStore),
    "http-async": lambda _, clock: http_stores.served(
        ":memory:", clock, lambda url: OnLoop(lambda: AsyncHTTPStore(url))
    ),
}
