"""Processes take turns.

SQLite's busy-waiting is unfair: a process that writes flat out can starve another completely. With two file
locks nobody is passed over: take `queue`, take `turn`, let go of `queue`, write, let go of `turn`. Whoever
has just written finds the next one holding `queue`.

A process that is alone need not queue. It starts to when it finds that somebody else has written or is writing,
and stops when it has been alone for a while. Until then it is SQLite's own lock that keeps the two apart, and the
other one, polling for it quickly, soon gets in between.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from botwire.errors import StoreBusy

if sys.platform != "win32":
    import fcntl

TIMEOUT = 30.0  # seconds
QUEUED_FOR = 1.0  # seconds that a process goes on queueing after it last saw another one write
PAUSE = 0.000_05  # seconds between two looks at a lock: flock has no time-out of its own


class Turnstile:
    """A fair lock among processes, as a context manager. One thread of a process at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._queue: int | None = None
        self._turn: int | None = None
        self._queued_until = 0.0

    def others_write(self) -> None:
        """Another process was seen to write: queue from now on, for a while."""
        self._queued_until = time.monotonic() + QUEUED_FOR

    @property
    def needed(self) -> bool:
        """Whether others have been seen to write lately."""
        return time.monotonic() < self._queued_until

    def __enter__(self) -> None:
        if self._turn is None or self._queue is None:
            self._queue = _open(self._path + "-queue")
            self._turn = _open(self._path + "-turn")
        try:
            _lock(self._queue, self._path)
            _lock(self._turn, self._path)
            _unlock(self._queue)
        except BaseException:  # an interrupt too: nobody else may find the gate shut
            _unlock(self._turn)
            _unlock(self._queue)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in. Doing it twice is harmless."""
        if self._turn is not None:
            _unlock(self._turn)

    def close(self) -> None:
        """Close the lock files. After a fork this leaves the parent's locks alone: it has them open still."""
        for descriptor in (self._queue, self._turn):
            if descriptor is not None:
                os.close(descriptor)
        self._queue = self._turn = None


class NoTurnstile(Turnstile):
    """For stores that no other process can see."""

    @property
    def needed(self) -> bool:
        """Never: there are no others."""
        return False

    def __enter__(self) -> None:
        return None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)  # another user's: a lock can be held on it all the same


if sys.platform == "win32":  # no flock there: SQLite's own busy handler has to do

    def _lock(descriptor: int, path: str) -> None:
        return None

    def _unlock(descriptor: int) -> None:
        return None

else:

    def _lock(descriptor: int, path: str) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait_for(descriptor, path)

    def _wait_for(descriptor: int, path: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            time.sleep(PAUSE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"{path}: another process has been writing for over {TIMEOUT:g} seconds, or hangs. "
                        "Nothing was written; try again, or end that process"
                    ) from None
            else:
                return

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
