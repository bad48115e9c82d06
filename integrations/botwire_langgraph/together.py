"""Flows side by side: what they ask at the same time is asked at once, and answered of one moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from botwire.errors import TooLarge
from botwire.flows import Flow
from botwire.ops import Op


class _Running:
    """A flow that waits for answers, or has ended with its result."""

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self.asks: Sequence[Op] = ()
        self.result: Any = None
        self._go_on(partial(next, flow))

    def send(self, answers: list[Any]) -> None:
        """Give it what it waits for."""
        self._go_on(partial(self._flow.send, answers))

    def throw(self, error: TooLarge) -> None:
        """Tell it that what it asks is too much."""
        self._go_on(partial(self._flow.throw, error))

    def _go_on(self, step: Callable[[], Sequence[Op]]) -> None:
        try:
            self.asks = step()
        except StopIteration as stop:
            self.asks, self.result = (), stop.value


def together(flows: Sequence[Flow[Any]]) -> Flow[list[Any]]:
    """Run reading flows side by side. If all their answers are too large for one batch, each has its own."""
    running = [_Running(flow) for flow in flows]
    while waiting := [each for each in running if each.asks]:
        try:
            answers = iter((yield [op for each in waiting for op in each.asks]))
        except TooLarge as error:
            yield from _one_by_one(waiting, error)
            continue
        for each in waiting:
            each.send([next(answers) for _ in each.asks])
    return [each.result for each in running]


def _one_by_one(waiting: Sequence[_Running], error: TooLarge) -> Flow[None]:
    if len(waiting) == 1:  # its own to deal with
        waiting[0].throw(error)
        return
    for each in waiting:
        try:
            some = yield each.asks
        except TooLarge as own:
            each.throw(own)
        else:
            each.send(some)
