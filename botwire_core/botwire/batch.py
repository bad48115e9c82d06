"""Batches: writes that are made together, all or none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from . import flows, talks
from .flows import Ttl
from .ops import Append, Clear, Delete, Op, Touch


class BatchOps:
    """The writes of a batch, in order. `results` holds one answer for each when it is done."""

    def __init__(self, namespace: str, author: str | None) -> None:
        self.namespace = namespace
        self.author = author
        self.ops: list[Op] = []
        self.results: list[Any] = []

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Ttl = None,
        if_version: int | None = None,
        tags: Iterable[str] = (),
        author: str | None = None,
        history: bool = True,
        index: bool | Iterable[str] | None = None,
    ) -> None:
        """As `Memory.set`, when the batch is done. A lost compare-and-set undoes the whole batch."""
        op = flows.put_op(
            self.namespace, key, value, ttl, if_version, tags, author or self.author, history=history, index=index
        )
        self.ops.append(op)

    def delete(self, key: str, *, if_version: int | None = None, history: bool = True) -> None:
        """As `Memory.delete`."""
        self.ops.append(Delete(self.namespace, key, if_version, history))

    def touch(self, key: str, ttl: Ttl = None, *, if_version: int | None = None) -> None:
        """As `Memory.touch`."""
        self.ops.append(Touch(self.namespace, key, flows.seconds(ttl), if_version))

    def append(
        self,
        conversation: str,
        message: Any,
        *,
        id: str | None = None,
        role: str | None = None,
        author: str | None = None,
        at: datetime | None = None,
        index: bool = True,
    ) -> None:
        """As `Conversation.append`."""
        new = talks.new_message(message, id, role, author or self.author, at, index=index)
        self.ops.append(Append(self.namespace, conversation, [new]))

    def clear(self, conversation: str | None = None) -> None:
        """As `Memory.clear`, or `Conversation.clear`."""
        self.ops.append(Clear(self.namespace, conversation))

    def __len__(self) -> int:
        return len(self.ops)


class Batch(BatchOps):
    """A batch of a `Memory`."""

    def __init__(self, namespace: str, author: str | None, execute: Callable[[Sequence[Op]], list[Any]]) -> None:
        super().__init__(namespace, author)
        self._execute = execute

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.ops:
            self.results = self._execute(self.ops)


class AsyncBatch(BatchOps):
    """A batch of an `AsyncMemory`."""

    def __init__(
        self, namespace: str, author: str | None, execute: Callable[[Sequence[Op]], Awaitable[list[Any]]]
    ) -> None:
        super().__init__(namespace, author)
        self._execute = execute

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.ops:
            self.results = await self._execute(self.ops)
