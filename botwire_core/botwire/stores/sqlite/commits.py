"""Callers on many threads share one commit.

Whoever finds nobody leading leads: it takes everyone who has queued up, runs them in one transaction, and wakes
them when it is committed. Meanwhile the next group gathers. A lone caller leads itself and never waits.

An interrupt (Ctrl-C) can hit the main thread anywhere. So nothing hangs on a wake-up: who waits looks again after a
moment, and if its request is neither done nor anybody leads, it leads itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from botwire.ops import Op

CROWD_DELAY = 0.000_2  # seconds
LOOK_AGAIN = 0.05  # seconds; only an interrupted leader makes anybody wait so long


class Request:
    """One caller's batch, and what came of it."""

    __slots__ = ("done", "error", "ops", "request_id", "results", "turn")

    def __init__(self, ops: Sequence[Op], request_id: str | None = None) -> None:
        self.ops = ops
        self.request_id = request_id
        self.results: list[Any] = []
        self.error: BaseException | None = None
        self.done = False
        self.turn: threading.Lock | None = None  # held while its thread sleeps; released to wake it


class Commits:
    """Groups requests and has `run` commit each group.

    `run` marks every request done, with results or an error. If it raises instead (KeyboardInterrupt in the
    leading thread), nothing of the group was committed, and each of the others comes again.
    """

    def __init__(self, run: Callable[[list[Request]], None]) -> None:
        self._run = run
        self._leading = threading.Lock()
        self._crowd = 0  # how many threads were there at the last commit, in it or waiting
        self._queue: deque[Request] = deque()

    def submit(self, requests: list[Request]) -> None:
        """Have the requests of one thread committed; return when all of them are done."""
        if not self._leading.locked():
            self._lead(requests)
            return
        last = requests[-1]  # a queue is taken whole, so when the last one is done all are
        last.turn = threading.Lock()
        last.turn.acquire()
        try:
            self._queue.extend(requests)
            # A leader looks at the queue after it has ceased to lead: either it sees us, or we see it gone.
            while not last.done:
                if not self._leading.locked():
                    self._lead(requests)
                else:
                    last.turn.acquire(timeout=LOOK_AGAIN)
        except BaseException:
            for request in requests:
                with suppress(ValueError):  # a leader has taken it already: it may be committed
                    self._queue.remove(request)
            raise

    def _lead(self, own: list[Request]) -> None:
        with self._leading:
            if own[-1].done:
                return
            others: list[Request] = []
            if self._crowd > 1 or self._queue:
                others = [request for request in self._gather() if not request.done and request not in own]
            self._crowd = 1 + _threads(others)
            group = own + others
            self._run(group)
        self._wake(group)

    def _gather(self) -> list[Request]:
        """Take the queue, after giving those whom the last commit has just set free a moment to come back."""
        deadline = time.perf_counter() + CROWD_DELAY
        while 1 + len(self._queue) < self._crowd and time.perf_counter() < deadline:
            time.sleep(0)  # lets the other threads run
        group: list[Request] = []
        while self._queue:
            group.append(self._queue.popleft())
        return group

    def _wake(self, group: list[Request]) -> None:
        """Wake those who are done, and one of those who have queued up meanwhile, to lead them."""
        waiting = list(self._queue)
        self._crowd += _threads(waiting)
        for request in group:
            _wake(request)
        next((request for request in waiting if _wake(request)), None)


def _threads(requests: list[Request]) -> int:
    """How many threads wait for these; one of an event loop brings many requests."""
    return sum(request.turn is not None for request in requests)


def _wake(request: Request) -> bool:
    """Wake the request's thread, if it has one of its own that sleeps."""
    if request.turn is None:
        return False
    try:
        request.turn.release()
    except RuntimeError:  # it is awake already
        return False
    return True
