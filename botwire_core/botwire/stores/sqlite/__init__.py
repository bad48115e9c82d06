"""The embedded store: one SQLite file, shared by threads and processes.

store.py        SQLiteStore and its async twin: who runs what, and where
schema/         the tables, as numbered migrations
connection.py   opening a connection; SQLite's errors in our words
commits.py      callers on many threads share one commit
turnstile.py    processes take turns
ledger.py       namespace rows: the lock, the clock and the meter
reads.py        what the reading ops do
writes.py       what the writing ops do
moves.py        dump, load and erase
upkeep.py       backup, restore and the checks of `botwire doctor`
"""

from typing import TYPE_CHECKING, Any

from .store import SQLiteStore

if TYPE_CHECKING:
    from .async_store import AsyncSQLiteStore

__all__ = ["AsyncSQLiteStore", "SQLiteStore"]


def __getattr__(name: str) -> Any:
    if name == "AsyncSQLiteStore":  # brings asyncio: only for those who use it
        from .async_store import AsyncSQLiteStore

        return AsyncSQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
