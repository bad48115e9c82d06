"""Callers on many threads share one commit.

Whoever comes first leads: it takes everyone who has queued up, runs them in one transaction, and wakes them
when it is committed. Meanwhile the next group gathers. A lone caller leads itself and never waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from botwire.ops import Op

CROWD_DELAY = 0.000_2  # seconds


class Request:
    """One caller's batch, and what came of it."""

    __slots__ = ("done", "error", "leads", "ops", "request_id", "results", "turn")

    def __init__(self, ops: Sequence[Op], request_id: str | None = None) -> None:
        self.ops = ops
        self.request_id = request_id
        self.results: list[Any] = []
        self.error: BaseException | None = None
        self.done = False
        self.leads = False
        self.turn: threading.Lock | None = None  # held while its thread sleeps


class Commits:
    """Groups requests and has `run` commit each group.

    `run` marks every request done, with results or an error. If it raises instead (KeyboardInterrupt in the
    leading thread), nothing of the group was committed: the others go back to the queue.
    """

    def __init__(self, run: Callable[[list[Request]], None]) -> None:
        self._run = run
        self._gate = threading.Lock()
        self._busy = False
        self._crowd = 0  # how many requests were there at the last commit, in it or waiting
        self._queue: deque[Request] = deque()

    def submit(self, requests: list[Request]) -> None:
        """Have the requests of one thread committed; return when all of them are done."""
        with self._gate:
            if leading := not self._busy:
                self._busy = True
            else:
                last = requests[-1]  # a queue is taken whole, so when the last one is done all are
                last.turn = threading.Lock()
                last.turn.acquire()
                self._queue.extend(requests)
        if not leading:
            self._wait(requests)
        elif self._crowd > 1:
            self._lead(requests + self._gather(len(requests)), requests)
        else:
            self._lead(requests, requests)

    def _wait(self, requests: list[Request]) -> None:
        last = requests[-1]
        assert last.turn is not None
        try:
            last.turn.acquire()
        except BaseException:
            self._leave(requests)
            raise
        if last.leads:
            self._lead(self._gather(0), requests)

    def _gather(self, present: int) -> list[Request]:
        """Take the queue, after giving those whom the last commit has just set free a moment to come back."""
        deadline = time.perf_counter() + CROWD_DELAY
        while present + len(self._queue) < self._crowd and time.perf_counter() < deadline:
            time.sleep(0)  # lets the other threads run
        with self._gate:
            group = list(self._queue)
            self._queue.clear()
        return group

    def _leave(self, requests: list[Request]) -> None:
        """Interrupted while waiting: step out of the queue, and hand on the lead if we were given it."""
        with self._gate:
            self._queue = deque(request for request in self._queue if request not in requests)
        if requests[-1].leads:
            self._finish([], requests)

    def _lead(self, group: list[Request], own: list[Request]) -> None:
        try:
            self._run(group)
        finally:
            self._finish(group, own)

    def _finish(self, group: list[Request], own: list[Request]) -> None:
        with self._gate:
            self._crowd = len(group) + len(self._queue)
            if group is own and not self._queue:  # the lone caller, mostly
                self._busy = False
                return
            undone = [request for request in group if not request.done and request not in own]
            self._queue.extendleft(reversed(undone))
            successor = next((request for request in self._queue if request.turn is not None), None)
            if successor is None:
                self._busy = False
            else:
                successor.leads = True
        for request in group:
            if request.done and request.turn is not None and not request.leads:
                request.turn.release()
        if successor is not None and successor.turn is not None:
            successor.turn.release()
