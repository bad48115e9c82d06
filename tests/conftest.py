"""What the tests share: a clock that they move, and every store there is.

A test that asks for `store` or `memory` runs over each entry of `STORES`. A new store is one more entry.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from botwire import Memory
from botwire.ops import Op, moment
from botwire.stores import opening
from botwire.stores.base import AsyncStore, Store
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore

T = TypeVar("T")


class Clock:
    """Microseconds since 1970, moved by hand. It begins on 2023-11-14 at 22:13:20 UTC."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self.now = now

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
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long proofs in full, not a bounded number of rounds")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`rounds(20, 2_000)`: how often to do something, by default and with `--long`."""
    return lambda few, many: many if request.config.getoption("--long") else few


@pytest.fixture(autouse=True)
def own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the user's memories or settings, nor the stores that another test left open."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    if sys.platform == "darwin":
        monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith("BOTWIRE_")]:
        monkeypatch.delenv(name)
    yield
    for shared in list(opening._shared.values()):
        shared.store.close()
    opening._shared.clear()
    opening._asked.clear()


@pytest.fixture
def clock() -> Clock:
    """The time of every store that a test makes."""
    return Clock()


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Callable[[str], Store]]:
    """Make a store of the kind under test; another name is another place. All are closed in the end."""
    make: MakeStore = STORES[request.param]
    made: list[Store] = []

    def new(name: str = "store") -> Store:
        made.append(make(tmp_path / f"{name}.db", clock))
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: Callable[[str], Store]) -> Store:
    """A store, empty."""
    return new_store("store")


@pytest.fixture
def memory(store: Store) -> Memory:
    """A memory in that store."""
    return Memory("user-42", store=store)
