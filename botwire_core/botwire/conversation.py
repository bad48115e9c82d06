"""`Conversation` and `AsyncConversation`: an append-only run of messages in a namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import talks
from .ops import Clear, ConversationInfo, Hit, Message, Messages
from .talks import Place
from .window import Counter

if TYPE_CHECKING:
    from .async_memory import AsyncMemory
    from .memory import Memory


class Conversation:
    """A run of messages: each a row of its own, never part of a rewritten blob.

    >>> from botwire import Memory
    >>> talk = Memory("user-42", url="sqlite://").conversation("thread-1")
    >>> talk.append({"role": "user", "content": "hi"})
    Message('#1', user, {'role': 'user', 'content': 'hi'})
    >>> [message.value["content"] for message in talk.messages(last=20)]
    ['hi']
    """

    def __init__(self, memory: Memory, name: str) -> None:
        self._memory = memory
        self.namespace = memory.namespace
        self.name = name

    def __repr__(self) -> str:
        return f"Conversation({self.namespace!r}, {self.name!r})"

    def append(
        self,
        message: Any,
        *,
        id: str | None = None,
        role: str | None = None,
        author: str | None = None,
        at: datetime | None = None,
        if_version: int | None = None,
        index: bool = True,
    ) -> Message:
        """Append a message: any JSON. Role, author and time are recognised in it, or given.

        With an `id` it is appended once: the same message again answers with the one that is there, another message
        under that id raises `Conflict`. `if_version`: only if the conversation's last message has that version
        (0: only if there is none yet). `index=False`: search does not find it.
        """
        new = talks.new_message(message, id, role, author or self._memory.author, at, index=index)
        return self._append([new], if_version)[0]

    def extend(self, messages: Iterable[Any], *, if_version: int | None = None) -> list[Message]:
        """Append several messages, all or none, with nothing between them."""
        new = [talks.new_message(message, author=self._memory.author) for message in messages]
        return self._append(new, if_version)

    def _append(self, new: list[Any], if_version: int | None) -> list[Message]:
        op = talks.append_op(self.namespace, self.name, new, if_version)
        return talks.appended(op, self._memory.ask(op))

    def messages(
        self,
        *,
        last: int | None = None,
        max_tokens: int | None = None,
        counter: Counter | None = None,
        before: Place = None,
        after: Place = None,
        roles: Iterable[str] | None = None,
    ) -> list[Message]:
        """Messages, oldest first; `.value` is exactly what was appended.

        `last=n`: the newest n. `max_tokens`: the newest that fit, system messages always among them, a tool call never
        parted from its results; `counter(value) -> int` counts tokens, by default they are estimated. `before` and
        `after` are messages or versions: `messages(last=20, before=page[0])` pages back.
        """
        flow = talks.messages(
            self.namespace, self.name, last=last, max_tokens=max_tokens, counter=counter, before=before, after=after,
            roles=roles,
        )  # fmt: skip
        return self._memory.run(flow)

    def search(
        self,
        query: str,
        limit: int = 10,
        *,
        where: dict[str, Any] | None = None,
        author: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        around: int = 0,
        explain: bool = False,
    ) -> list[Hit]:
        """The messages of this conversation that answer a query best: see `Memory.search`."""
        return self._memory.search(
            query, limit, where=where, conversation=self.name, author=author, since=since, until=until, around=around,
            explain=explain,
        )  # fmt: skip

    def message(self, id: str) -> Message | None:
        """One message by its id."""
        return self._memory.run(talks.one(self.namespace, self.name, id))

    def pop(self) -> Message | None:
        """Take the last message away and return it; `None` if there is none."""
        return self._memory.run(talks.pop(self.namespace, self.name))

    def edit(self, message: Message | str, value: Any) -> Message:
        """Replace a message where it stands. What it was is not kept. `KeyError` if it is not there."""
        return self._memory.run(talks.edit(self.namespace, self.name, message, value))

    def redact(self, message: Message | str, text: str = "[redacted]") -> Message:
        """Blot a message out: its content becomes `text`, its role and tool-call ids stay.

        Raises `NotFound` (a `KeyError`) if it is not there.
        """
        return self._memory.run(talks.redact(self.namespace, self.name, message, text))

    def delete(self, message: Message | str) -> bool:
        """Remove one message. True if it was there."""
        return self._memory.run(talks.delete(self.namespace, self.name, message))

    def trim(self, *, keep: int | None = None, older_than: datetime | None = None) -> int:
        """Remove all but the last `keep` messages, or those said before a time. Returns how many."""
        return self._memory.run(talks.trim(self.namespace, self.name, keep, older_than))

    def clear(self) -> int:
        """Remove the conversation. Returns how many messages it had."""
        removed: int = self._memory.ask(Clear(self.namespace, self.name)).messages
        return removed

    def info(self) -> ConversationInfo:
        """How much it holds; one that was never written to has version 0."""
        return self._memory.run(talks.info(self.namespace, self.name))

    def __iter__(self) -> Iterator[Message]:
        op, more = Messages(self.namespace, self.name, limit=talks.PAGE), True
        while more:
            page = self._memory.ask(op)
            yield from page.messages
            op, more = talks.following(op, page), page.more

    def __len__(self) -> int:
        return self.info().messages

    def __bool__(self) -> bool:
        return True  # an empty conversation is still one


class AsyncConversation:
    """The twin of `Conversation` for an event loop; its methods are described there."""

    def __init__(self, memory: AsyncMemory, name: str) -> None:
        self._memory = memory
        self.namespace = memory.namespace
        self.name = name

    def __repr__(self) -> str:
        return f"AsyncConversation({self.namespace!r}, {self.name!r})"

    async def append(
        self,
        message: Any,
        *,
        id: str | None = None,
        role: str | None = None,
        author: str | None = None,
        at: datetime | None = None,
        if_version: int | None = None,
        index: bool = True,
    ) -> Message:
        """Append a message."""
        new = talks.new_message(message, id, role, author or self._memory.author, at, index=index)
        return (await self._append([new], if_version))[0]

    async def extend(self, messages: Iterable[Any], *, if_version: int | None = None) -> list[Message]:
        """Append several messages, all or none, with nothing between them."""
        new = [talks.new_message(message, author=self._memory.author) for message in messages]
        return await self._append(new, if_version)

    async def _append(self, new: list[Any], if_version: int | None) -> list[Message]:
        op = talks.append_op(self.namespace, self.name, new, if_version)
        return talks.appended(op, await self._memory.ask(op))

    async def messages(
        self,
        *,
        last: int | None = None,
        max_tokens: int | None = None,
        counter: Counter | None = None,
        before: Place = None,
        after: Place = None,
        roles: Iterable[str] | None = None,
    ) -> list[Message]:
        """Messages, oldest first."""
        flow = talks.messages(
            self.namespace, self.name, last=last, max_tokens=max_tokens, counter=counter, before=before, after=after,
            roles=roles,
        )  # fmt: skip
        return await self._memory.run(flow)

    async def search(
        self,
        query: str,
        limit: int = 10,
        *,
        where: dict[str, Any] | None = None,
        author: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        around: int = 0,
        explain: bool = False,
    ) -> list[Hit]:
        """The messages of this conversation that answer a query best."""
        return await self._memory.search(
            query, limit, where=where, conversation=self.name, author=author, since=since, until=until, around=around,
            explain=explain,
        )  # fmt: skip

    async def message(self, id: str) -> Message | None:
        """One message by its id."""
        return await self._memory.run(talks.one(self.namespace, self.name, id))

    async def pop(self) -> Message | None:
        """Take the last message away and return it."""
        return await self._memory.run(talks.pop(self.namespace, self.name))

    async def edit(self, message: Message | str, value: Any) -> Message:
        """Replace a message where it stands."""
        return await self._memory.run(talks.edit(self.namespace, self.name, message, value))

    async def redact(self, message: Message | str, text: str = "[redacted]") -> Message:
        """Blot a message out."""
        return await self._memory.run(talks.redact(self.namespace, self.name, message, text))

    async def delete(self, message: Message | str) -> bool:
        """Remove one message."""
        return await self._memory.run(talks.delete(self.namespace, self.name, message))

    async def trim(self, *, keep: int | None = None, older_than: datetime | None = None) -> int:
        """Remove all but the last `keep` messages, or those said before a time."""
        return await self._memory.run(talks.trim(self.namespace, self.name, keep, older_than))

    async def clear(self) -> int:
        """Remove the conversation."""
        removed: int = (await self._memory.ask(Clear(self.namespace, self.name))).messages
        return removed

    async def info(self) -> ConversationInfo:
        """How much it holds."""
        return await self._memory.run(talks.info(self.namespace, self.name))

    async def __aiter__(self) -> AsyncIterator[Message]:
        op, more = Messages(self.namespace, self.name, limit=talks.PAGE), True
        while more:
            page = await self._memory.ask(op)
            for message in page.messages:
                yield message
            op, more = talks.following(op, page), page.more

    def __bool__(self) -> bool:
        return True  # an empty conversation is still one
