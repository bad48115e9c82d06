"""Calls that are made at the same time travel together: a request for each would cost most of the time they take.

Each stays what it was: atomic for itself, with its own request id and its own error. Nobody waits for company: a call
goes at once, together with those that the event loop makes in the same round, unless enough requests are under way;
then it goes with the next. Only short ops do, of which none minds being answered together with the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from botwire import wire
from botwire.errors import BotWireError, InvalidInput

from .calls import Call, Outcome, Server, Sleep, Steps, Together, attempts, judged, judged_problem, late

UNDER_WAY: Final = 2  # requests in a lane; what is asked meanwhile gathers, and goes with the next
MOST_CALLS: Final = 100  # that travel together, …
MOST_OPS: Final = 500  # … their ops, …
MOST_BYTES: Final = 512 * 1024  # … and their size


class Passenger:
    """A call that waits for its results."""

    __slots__ = ("call", "deadline", "future", "is_sent")

    def __init__(self, call: Call, deadline: float) -> None:
        self.call = call
        self.deadline = deadline
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.is_sent = False

    def conclude(self, outcome: Outcome, server: Server) -> None:
        """Tell the caller, if it still waits."""
        if self.future.done():
            return
        try:
            self.future.set_result(self.call.concluded(outcome, server))
        except BotWireError as error:
            self.future.set_exception(error)


class Lane:
    """The calls of one event loop that may travel together. `run` makes requests."""

    def __init__(self, server: Server, run: Callable[[Steps[Any]], Awaitable[Any]]) -> None:
        self._server = server
        self._run = run
        self._waiting: deque[Passenger] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False

    async def join(self, call: Call) -> list[Any]:
        """Make a call."""
        each = Passenger(call, monotonic() + self._server.timeout)
        self._waiting.append(each)
        self._call_soon()
        try:
            async with asyncio.timeout(self._server.timeout):
                return await each.future
        except TimeoutError:
            verdict = judged(late(self._server, reached=each.is_sent), self._server, call.read)
            return call.concluded(Outcome(None, verdict.error, verdict.doubt), self._server)
        finally:
            if not each.is_sent and each in self._waiting:
                self._waiting.remove(each)

    # ── who goes with whom ──

    def _call_soon(self) -> None:
        """Send those who wait, after everyone who is at it now has joined them."""
        if self._waiting and not self._is_due and len(self._tasks) < UNDER_WAY:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._is_due = False
        task = asyncio.get_running_loop().create_task(self._send(self._next_group()))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._call_soon()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._call_soon()

    def _next_group(self) -> list[Passenger]:
        """Those whose turn it is: as many as fit into one request."""
        group: list[Passenger] = []
        ops = size = 0
        while self._waiting:
            if self._waiting[0].future.done():  # it was cancelled
                self._waiting.popleft()
                continue
            call = self._waiting[0].call
            ops, size = ops + len(call.ops), size + len(call.body)
            if group and (len(group) >= MOST_CALLS or ops > MOST_OPS or size > MOST_BYTES):
                break
            each = self._waiting.popleft()
            each.is_sent = True
            group.append(each)
        return group

    # ── sending ──

    async def _send(self, group: list[Passenger]) -> None:
        try:
            if len(group) == 1:
                await self._send_alone(group[0])
            elif group:
                await self._send_together(group)
        except Exception as error:  # noqa: BLE001  # it is raised again where the calls are awaited
            for each in group:
                if not each.future.done():
                    each.future.set_exception(error)
        finally:
            for each in group:
                each.future.cancel()  # nothing is left to tell when this was cancelled

    async def _send_alone(self, each: Passenger, *, tried: int = 0, doubt: bool = False) -> None:
        steps = attempts(each.call, self._server, each.deadline, tried=tried, doubt=doubt)
        each.conclude(await self._run(steps), self._server)

    async def _send_together(self, group: list[Passenger]) -> None:
        calls = Together([each.call for each in group])
        outcome: Outcome = await self._run(attempts(calls, self._server, max(each.deadline for each in group)))
        if outcome.error is None:
            await asyncio.gather(*map(self._tell, group, outcome.result))
        elif isinstance(outcome.error, InvalidInput):
            # Refused as a whole: too much at once for this server, or one of them is broken. Each on its own, then.
            await asyncio.gather(*(self._send_alone(each, doubt=outcome.doubt) for each in group))
        else:
            for each in group:
                each.conclude(outcome, self._server)

    async def _tell(self, each: Passenger, answer: list[Any] | wire.Problem) -> None:
        if not isinstance(answer, wire.Problem):
            each.conclude(Outcome(answer), self._server)
            return
        verdict = judged_problem(answer)
        pause = verdict.pause(1)
        if pause is None:
            each.conclude(Outcome(None, verdict.error, verdict.doubt), self._server)
        else:
            await self._run(_pause(pause))
            await self._send_alone(each, tried=1, doubt=verdict.doubt)


def _pause(seconds: float) -> Steps[None]:
    yield Sleep(seconds)
