"""pytest fixtures for those who use botwire: an in-memory `Memory`, and a clock that they can move.

pytest finds them by itself once botwire is installed.

    def test_forgets(botwire_memory, botwire_clock):
        botwire_memory.set("token", "secret", ttl=60)
        botwire_clock.advance(61)
        assert botwire_memory.get("token") is None

`botwire_memory` is a fresh `Memory("test")`, and `botwire_async_memory` its twin: two faces of one store in memory,
which is `botwire_store` (for other namespaces: `Memory("user-42", store=botwire_store)`). No test sees what another
one has stored, and nothing touches the disk. Time stands still, on 2026-01-01 at midnight UTC, until a test moves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from .errors import InvalidInput
from .memory import Memory
from .ops import MICROSECONDS, microseconds, moment

if TYPE_CHECKING:
    from .async_memory import AsyncMemory
    from .stores.sqlite import SQLiteStore

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved: `SQLiteStore(":memory:", clock=Clock())`.

    >>> clock = Clock()
    >>> clock.now
    datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    >>> clock.advance(90)
    >>> clock.advance(timedelta(days=1))
    >>> clock.now
    datetime.datetime(2026, 1, 2, 0, 1, 30, tzinfo=datetime.timezone.utc)

    A memory on it goes by its time:

    >>> from botwire import Memory
    >>> from botwire.stores.sqlite import SQLiteStore
    >>> memory = Memory("test", store=SQLiteStore(":memory:", clock=clock))
    >>> memory.set("token", "secret", ttl=60).expires_at
    datetime.datetime(2026, 1, 2, 0, 2, 30, tzinfo=datetime.timezone.utc)
    >>> clock.advance(60)
    >>> memory.get("token") is None
    True
    """

    def __init__(self, start: datetime = START) -> None:
        self._microseconds = microseconds(start)

    @property
    def now(self) -> datetime:
        """The time, as an aware datetime (UTC)."""
        return moment(self._microseconds)

    def advance(self, by: float | timedelta) -> None:
        """Let time pass: seconds, or a timedelta."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if not 0 <= seconds < float("inf"):
            raise InvalidInput(f"advance({by!r}): time only goes on; give zero seconds or more")
        self._microseconds += round(seconds * MICROSECONDS)

    def __call__(self) -> int:
        """The time as stores count it: microseconds since 1970."""
        return self._microseconds

    def __repr__(self) -> str:
        return f"Clock({self.now.isoformat()})"


@pytest.fixture
def botwire_clock() -> Clock:
    """The clock of this test's memories: `.now`, and `.advance(seconds or a timedelta)`."""
    return Clock()


@pytest.fixture
def botwire_store(botwire_clock: Clock) -> Iterator[SQLiteStore]:
    """The store of this test's memories: in memory, empty, with `botwire_clock` for its time."""
    from .stores.sqlite import SQLiteStore  # brings the engine: only for tests that ask for a memory

    store = SQLiteStore(":memory:", clock=botwire_clock)
    yield store
    store.close()


@pytest.fixture
def botwire_memory(botwire_store: SQLiteStore) -> Memory:
    """A fresh `Memory("test")` that is gone after the test."""
    return Memory("test", store=botwire_store)


@pytest.fixture
def botwire_async_memory(botwire_store: SQLiteStore) -> AsyncMemory:
    """The same memory as `botwire_memory`, for an event loop: works with every async plugin of pytest."""
    from .async_memory import AsyncMemory
    from .stores.sqlite import AsyncSQLiteStore

    return AsyncMemory("test", store=AsyncSQLiteStore(botwire_store))
