"""Opening a connection, and SQLite's errors in our words."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import apsw

from botwire.errors import (
    BotWireError,
    InvalidInput,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

from .turnstile import PAUSE

Durability = Literal["full", "relaxed"]

BUSY_TIMEOUT = 10.0  # seconds; those who write much queue at the turnstile instead
READER_MMAP = 256 * 1024 * 1024  # bytes
READER_CACHE = 8 * 1024 * 1024  # bytes
CHECKPOINT_PAGES = 1_000


def connect(path: str, durability: Durability, *, reader: bool = False, mapped: bool = False) -> apsw.Connection:
    """Open the file for writing, or as one of many readers of a file that `prepare` has seen.

    `mapped`: read through the operating system's own pages, which suits single reads; a listing of everything
    would count as this process's memory.
    """
    access = apsw.SQLITE_OPEN_READONLY if reader else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(path, flags=access)
    connection.set_busy_timeout(round(BUSY_TIMEOUT * 1_000))
    if reader:
        connection.execute("PRAGMA temp_store = memory")
        connection.execute(f"PRAGMA cache_size = {-READER_CACHE // 1024}")
        connection.execute(f"PRAGMA mmap_size = {READER_MMAP if mapped else 0}")
        return connection
    # FULL: an acknowledged write survives power loss. NORMAL: it survives the process; power loss undoes the last ones.
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
    if sys.platform == "darwin" and durability == "full":
        connection.execute("PRAGMA fullfsync = on")
        connection.execute("PRAGMA checkpoint_fullfsync = on")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA secure_delete = on")
    return connection


class Patience:
    """Waits for SQLite's lock in small steps.

    Its own handler sleeps up to 100 ms at a time, and starves beside a process that writes flat out.
    """

    def __init__(self, when_busy: Callable[[], None]) -> None:
        self._when_busy = when_busy
        self._deadline = 0.0

    def __call__(self, tries: int) -> bool:
        """Called by SQLite while the lock is taken; False gives up."""
        now = time.monotonic()
        if tries == 0:
            self._when_busy()
            self._deadline = now + BUSY_TIMEOUT
        time.sleep(PAUSE)
        return now < self._deadline


@contextmanager
def translated(path: str) -> Generator[None]:
    """Raise what SQLite raises as a `BotWireError` that says what to do."""
    try:
        yield
    except apsw.Error as error:
        raise in_our_words(error, path) from error
    except OverflowError as error:
        raise InvalidInput(f"a number is too large to be stored or looked for: {error}") from error


def in_our_words(error: apsw.Error, path: str) -> BotWireError:  # noqa: PLR0911  # one line for each kind of error
    """The `BotWireError` for an error of SQLite's."""
    told = f"{path}: {error}"
    match error:
        case apsw.FullError():
            return StoreFull(f"{told}. Nothing was written. Free some space, or move the file; reading still works")
        case apsw.BusyError() | apsw.LockedError():
            return StoreBusy(f"{told}. Another program holds the file's lock; nothing was written, try again")
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return StoreReadOnly(f"{told}. Nothing was written. Make the file and its folder writable for this user")
        case apsw.NotADBError():
            return StoreCorrupt(f"{told}. It was left as it is: choose another path, or restore a backup over it")
        case apsw.CorruptError():
            return StoreCorrupt(f"{told}. Run `botwire doctor`, and restore the last backup with `botwire restore`")
        case apsw.IOError() if _is_full(path):
            return StoreFull(f"{told}. Nothing was written. Free some space, or move the file; reading still works")
        case apsw.CantOpenError():
            return StoreUnavailable(_cannot_open(path, told))
        case _:
            return StoreError(told)


def _is_full(path: str) -> bool:
    """Whether the disk has no room left: SQLite's shared memory then fails with an I/O error that does not say so."""
    folder = Path(path).absolute().parent
    return folder.is_dir() and shutil.disk_usage(folder).free < 64 * 1024


def _cannot_open(path: str, told: str) -> str:
    file = Path(path)
    if file.is_dir():
        return f"{path} is a folder: give the path of a file, such as {file / 'botwire.db'}"
    if not file.parent.is_dir():
        return f"{file.parent} does not exist: create the folder, or give another path"
    return f"{told}. See that {file.parent} exists and that this user may write there"
