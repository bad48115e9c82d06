"""`BotWireChatHistory`: the messages of a session, as LangChain's chat history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Unpack

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from botwire import AsyncMemory, Conversation, Memory, Message, talks
from botwire.adapting import Place, memory_for
from botwire.errors import InvalidInput
from botwire.flows import Flow
from botwire.names import check_name
from botwire.ops import Clear, NewMessage
from botwire.window import Counter

from .moving import appends, named, take_over
from .portions import portions
from .serialization import from_dict, from_stored, to_dict

NAMESPACE = "langchain-sessions"  # where botwire 0.2 kept them

TokenCounter = Callable[[list[BaseMessage]], int]


class BotWireChatHistory(BaseChatMessageHistory):
    """The messages of a session, each a message of a botwire conversation: adding one costs the same at any length.

    Args:
        session_id: the session, and the name of the conversation.
        namespace: where the sessions are kept; by default `"langchain-sessions"`.
        memory: a `Memory` to keep them in, instead of a namespace.
        history_size: `messages` gives the newest so many; all are kept.
        max_tokens: `messages` gives the newest that fit: system messages always, tool calls never without results.
        token_counter: counts the tokens of a list of messages, as `model.get_num_tokens_from_messages` does; without
            it they are estimated.
        place: `url`, `api_key`, `durability`, `encryption_key` and so on, as `Memory` takes them.

    A history that botwire 0.2 wrote for the session is taken over by the first use.

    >>> history = BotWireChatHistory("user-42", url="sqlite://")
    >>> history.add_user_message("I take my coffee black.")
    >>> [message.content for message in history.messages]
    ['I take my coffee black.']

    """

    def __init__(
        self,
        session_id: str,
        namespace: str | None = None,
        *,
        memory: Memory | None = None,
        history_size: int | None = None,
        max_tokens: int | None = None,
        token_counter: TokenCounter | None = None,
        **place: Unpack[Place],
    ) -> None:
        check_name(session_id, "session_id")
        if history_size is not None and max_tokens is not None:
            raise InvalidInput("give history_size or max_tokens, not both")
        for name, number in (("history_size", history_size), ("max_tokens", max_tokens)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
                raise InvalidInput(f"{name}={number!r} must be a whole number, zero or more")
        self.session_id = session_id
        self.history_size = history_size
        self.max_tokens = max_tokens
        self.token_counter = token_counter
        self._memory = memory_for(memory, namespace, place, default=NAMESPACE)
        self._taken_over = False

    def __repr__(self) -> str:
        return f"BotWireChatHistory({self.session_id!r}, {self._memory.namespace!r})"

    @property
    def conversation(self) -> Conversation:
        """The conversation behind it, for what LangChain has no words for: search, edit, redact, trim."""
        return self._memory.conversation(self.session_id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # reading needs I/O; all histories do so
        """What was said, oldest first: all of it, or what `history_size` or `max_tokens` lets through."""
        return from_stored(self._memory.run(self._reading()))

    async def aget_messages(self) -> list[BaseMessage]:
        """As `messages`, for an event loop."""
        return from_stored(await self._twin.run(self._reading()))

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages at the end, all or none, with nothing between them."""
        self._memory.run(self._adding(self._written(messages)))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """As `add_messages`, for an event loop."""
        await self._twin.run(self._adding(self._written(messages)))

    def clear(self) -> None:
        """Remove all messages of the session."""
        self._memory.run(self._clearing())

    async def aclear(self) -> None:
        """As `clear`, for an event loop."""
        await self._twin.run(self._clearing())

    def import_from(self, other: BaseChatMessageHistory) -> int:
        """Copy the messages of any other history to the end of this one. Returns how many it has.

        Doing it again adds only what the other one has gained since, or what an interrupted import has left out, as
        long as the other one still begins as it did: of one that has let go of its first messages all come again.
        """
        self._check_other(other)
        return self._memory.run(self._importing(other.messages, _origin(other)))

    async def aimport_from(self, other: BaseChatMessageHistory) -> int:
        """As `import_from`, for an event loop."""
        self._check_other(other)
        return await self._twin.run(self._importing(await other.aget_messages(), _origin(other)))

    # ── what sync and async methods share ──

    @cached_property
    def _twin(self) -> AsyncMemory:
        return self._memory.twin()

    def _first(self) -> Flow[None]:
        """What comes before the first use: a history that botwire 0.2 wrote is taken over."""
        if not self._taken_over:
            yield from take_over(self._memory.namespace, self.session_id)
            self._taken_over = True

    def _reading(self) -> Flow[list[Message]]:
        yield from self._first()
        return (
            yield from talks.messages(
                self._memory.namespace, self.session_id, last=self.history_size, max_tokens=self.max_tokens,
                counter=self._counter(), before=None, after=None, roles=None,
            )
        )  # fmt: skip

    def _counter(self) -> Counter | None:
        count = self.token_counter
        return None if count is None else lambda value: count([from_dict(value, "a message of the session")])

    def _written(self, messages: Sequence[BaseMessage]) -> list[NewMessage]:
        """The messages as they are stored. Under ids of botwire's: LangChain's may come again, and stay inside."""
        return [talks.new_message(to_dict(message), author=self._memory.author) for message in messages]

    def _adding(self, new: list[NewMessage]) -> Flow[None]:
        yield from self._first()
        if new:
            yield appends(self._memory.namespace, self.session_id, new)

    def _clearing(self) -> Flow[None]:
        yield from self._first()
        yield [Clear(self._memory.namespace, self.session_id)]

    def _importing(self, messages: Sequence[BaseMessage], origin: str) -> Flow[int]:
        new = named(self._written(messages), origin)
        yield from self._first()
        for portion in portions(new):
            yield appends(self._memory.namespace, self.session_id, portion)
        return len(new)

    def _check_other(self, other: BaseChatMessageHistory) -> None:
        if other is self or not isinstance(other, BaseChatMessageHistory):
            raise InvalidInput(f"import_from takes another chat history of LangChain's, not {other!r}")


def _origin(other: BaseChatMessageHistory) -> str:
    """Where messages come from: the same text from elsewhere is another message."""
    return f"{type(other).__qualname__}/{getattr(other, 'session_id', '')}"
