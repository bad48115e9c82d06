"""The part of a conversation that fits into a token budget.

Newest first, whole exchanges only: a tool call and its results are kept or left together. System messages are
always kept. Pure functions: pages of messages go in, the chosen ones come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import InvalidInput
from .ops import Message
from .shapes import calls_of, results_of

Counter = Callable[[Any], int]

TOKENS_PER_MESSAGE = 4  # what chat formats add around each message
LOOK_BACK = 1_000  # messages between a tool's result and its call; beyond, the call is taken for lost
BYTES_PER_TOKEN = 4  # of English text as JSON; other scripts take fewer characters a token but more bytes a character


def estimate_tokens(message: Message) -> int:
    """A rough count: a quarter of the bytes, and four for the message's frame. Pass a `counter` for an exact one."""
    return TOKENS_PER_MESSAGE + len(bytes(message.raw)) // BYTES_PER_TOKEN


class Window:
    """Takes messages newest first, whole exchanges only, until the budget is spent."""

    def __init__(self, system: Sequence[Message], max_tokens: int, counter: Counter | None) -> None:
        self._counter = counter
        self._chosen = list(system)
        self._system = {message.version for message in system}
        self._left = max_tokens - sum(self._tokens(message) for message in system)
        if self._left < 0:
            raise InvalidInput(
                f"the {len(system)} system messages alone take {max_tokens - self._left:,} tokens, more than "
                f"max_tokens={max_tokens:,}: raise it, or trim them"
            )
        self._lost: set[str] = set()
        self._begin_exchange()
        self.full = False

    def _begin_exchange(self) -> None:
        self._exchange: list[Message] = []
        self._cost = 0
        self._uncalled: set[str] = set()  # results whose call is still to come, further back

    def _tokens(self, message: Message) -> int:
        return estimate_tokens(message) if self._counter is None else self._counter(message.value)

    def add(self, messages: Iterable[Message]) -> None:
        """Take a page of messages, newest first."""
        for message in messages:
            if self.full:
                return
            if message.version not in self._system:
                self._add_one(message)

    def _add_one(self, message: Message) -> None:
        value = message.value
        results = results_of(value)
        if results & self._lost:
            return
        self._exchange.append(message)
        self._cost += self._tokens(message)
        self._uncalled = (self._uncalled | results) - calls_of(value)
        if self._uncalled:
            if len(self._exchange) >= LOOK_BACK:
                self._give_up_calls()
        elif self._cost > self._left:
            self.full = True
        else:
            self._chosen.extend(self._exchange)
            self._left -= self._cost
            self._begin_exchange()

    def _give_up_calls(self) -> None:
        """The calls are nowhere: models refuse their results, so leave these out and judge the rest again."""
        self._lost |= self._uncalled
        again = self._exchange
        self._begin_exchange()
        self.add(again)

    def chosen(self) -> list[Message]:
        """What fits, oldest first."""
        while not self.full and self._exchange:
            self._give_up_calls()
        return sorted(self._chosen, key=lambda message: message.version)
