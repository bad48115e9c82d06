"""`AsyncMemory`: the twin of `Memory` for an event loop, method by method. What they do is described there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from inspect import isawaitable
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast, overload

from . import embedding, flows, transfer, values
from .batch import AsyncBatch
from .conversation import AsyncConversation
from .embedding import Embedding
from .errors import BotWireError, Conflict
from .flows import Flow, Moment, Ttl
from .handle import Handle
from .memory import HEARTBEAT, Memory
from .names import check_name
from .ops import (
    Change,
    Changes,
    Clear,
    Configure,
    ConversationInfo,
    Conversations,
    Delete,
    Describe,
    Dump,
    DumpRecord,
    EndRecord,
    Erase,
    Erased,
    Get,
    History,
    Hit,
    Item,
    Load,
    NamespaceInfo,
    Namespaces,
    Op,
    Removed,
    Revision,
    Scan,
    Search,
    Touch,
    Value,
)
from .stores.base import AsyncStore

T = TypeVar("T")
D = TypeVar("D")


class AsyncMemory(Handle):
    """A memory that stays, for an event loop: the same arguments and methods as `Memory`, awaited.

    >>> import asyncio
    >>> async def main():
    ...     memory = AsyncMemory("user-42", url="sqlite://")
    ...     await memory.set("coffee", "Ethiopian Yirgacheffe")
    ...     return await memory.get("coffee")
    >>> asyncio.run(main())
    'Ethiopian Yirgacheffe'
    """

    __slots__ = ()

    _encrypted = "AsyncEncrypted"
    _store: AsyncStore | None

    # ── plumbing ──

    def _opened(self) -> AsyncStore:
        store = self._store
        if store is None:
            store = self._store = self._wrapped(self._acquire().async_store)
        return store

    async def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """Run ops, all or nothing."""
        return await (self._store or self._opened()).execute(ops, request_id=request_id)

    async def ask(self, op: Op) -> Any:
        """Run one op."""
        return (await (self._store or self._opened()).execute((op,)))[0]

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow."""
        try:
            ops = next(flow)
            while True:
                try:
                    results = await self.execute(ops)
                except BotWireError as error:
                    ops = flow.throw(error)
                else:
                    ops = flow.send(results)
        except StopIteration as stop:
            return cast("T", stop.value)

    async def _pages(self, op: Any, limit: int | None) -> AsyncIterator[Any]:
        while op is not None:
            page = await self.ask(op)
            if limit is not None and isinstance(op, Scan):
                limit -= len(page.items)
            yield page
            op = flows.next_page(op, page, limit)

    async def close(self) -> None:
        """Let go of the store."""
        if self._embedding is not None and self._embedding.worker is not None:
            self._embedding.worker.cancel()
        if self._given is not None:
            return  # it is the caller's to close
        self._store = None
        if (shared := self._release()) is not None:
            await shared.aclose()

    def twin(self) -> Memory:
        """The same memory for threads: same namespace, same store."""
        return self._twin(Memory)

    async def __aenter__(self) -> Self:
        self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ── values ──

    @overload
    async def get(self, key: str, default: Any = None, *, as_of: Moment = None) -> Any: ...
    @overload
    async def get(self, key: str, default: D, *, type: type[T], as_of: Moment = None) -> T | D: ...
    @overload
    async def get(self, key: str, default: None = None, *, type: type[T], as_of: Moment = None) -> T | None: ...
    async def get(self, key: str, default: Any = None, *, type: Any = None, as_of: Moment = None) -> Any:
        """The value of a key, or `default`."""
        if as_of is None:
            raw = await self.ask(Value(self.namespace, key))
        else:
            item = await self.item(key, as_of=as_of)
            raw = None if item is None else item.raw
        if raw is None:
            return default
        return values.decode(raw) if type is None else values.decode_as(raw, type)

    async def item(self, key: str, *, as_of: Moment = None) -> Item | None:
        """The key with all that stands beside its value."""
        item: Item | None = await self.ask(Get(self.namespace, key, *flows.moment_fields(as_of)))
        return item

    async def set(
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
    ) -> Item:
        """Store a value."""
        op = flows.put_op(
            self.namespace, key, value, ttl, if_version, tags, author or self.author, history=history, index=index
        )
        return flows.item_of(op, await self.ask(op))

    async def delete(self, key: str, *, if_version: int | None = None, history: bool = True) -> bool:
        """Delete a key. True if it was there."""
        return await self.ask(Delete(self.namespace, key, if_version, history)) is not None

    async def touch(self, key: str, ttl: Ttl = None, *, if_version: int | None = None) -> bool:
        """Have a key expire `ttl` seconds from now, or never."""
        return await self.ask(Touch(self.namespace, key, flows.seconds(ttl), if_version)) is not None

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that are there."""
        return await self.run(flows.get_many(self.namespace, keys))

    async def set_many(
        self, entries: Mapping[str, Any], *, ttl: Ttl = None, tags: Iterable[str] = (), author: str | None = None
    ) -> list[Item]:
        """Store several values, all or none."""
        return await self.run(flows.set_many(self.namespace, entries, ttl, tags, author or self.author))

    async def update(
        self, key: str, change: Callable[[Any], Any], *, ttl: Ttl = None, author: str | None = None
    ) -> Item:
        """Set the key to `change(its value, or None)`; `change` may be a coroutine function."""
        for _ in range(flows.MAX_TRIES):
            item = await self.item(key)
            value = change(None if item is None else item.value)
            if isawaitable(value):
                value = await value
            op = flows.updated_op(self.namespace, key, item, value, ttl=ttl, author=author or self.author)
            try:
                return flows.item_of(op, await self.ask(op))
            except Conflict:
                continue
        raise Conflict(f"{key!r} in {self.namespace!r} was changed by others {flows.MAX_TRIES:,} times in a row")

    async def increment(self, key: str, by: float = 1, *, initial: float = 0, author: str | None = None) -> Any:
        """Add to a number, which begins as `initial`. Returns the sum."""
        return await self.run(flows.increment(self.namespace, key, by, initial, author or self.author))

    async def setdefault(self, key: str, default: Any = None, *, ttl: Ttl = None, author: str | None = None) -> Any:
        """The value of the key, after setting it to `default` if it was not there."""
        return await self.run(flows.setdefault(self.namespace, key, default, ttl, author or self.author))

    async def pop(self, key: str, *default: Any) -> Any:
        """Take a value away and return it."""
        return await self.run(flows.pop(self.namespace, key, *default))

    def batch(self) -> AsyncBatch:
        """Collect writes, and make them all or none when the `async with` block ends well."""
        return AsyncBatch(self.namespace, self.author, self.execute)

    # ── history ──

    async def history(self, key: str, *, limit: int = 100) -> list[Revision]:
        """What the key was, newest first, the current value included."""
        revisions: list[Revision] = await self.ask(History(self.namespace, key, limit))
        return revisions

    async def undo(self, key: str, *, author: str | None = None) -> Item | None:
        """Bring back the value before this one."""
        return await self.run(flows.undo(self.namespace, key, author or self.author))

    # ── listings ──

    async def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, sorted."""
        return await self.run(flows.all_keys(self.namespace, prefix))

    async def list_keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, sorted."""
        return await self.keys(prefix)

    def items(
        self,
        *,
        prefix: str = "",
        where: dict[str, Any] | None = None,
        tags: Iterable[str] = (),
        author: str | None = None,
        since: datetime | None = None,
        order: str = "key",
        reverse: bool = False,
        subtree: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Item]:
        """Items page by page, by key or `order="updated"`."""
        op = flows.scan_op(
            self.namespace, prefix=prefix, where=where, tags=tags, author=author, since=since, order=order,
            reverse=reverse, subtree=subtree, limit=limit,
        )  # fmt: skip
        return self._flattened(self._pages(op, limit), "items")

    async def _flattened(self, pages: AsyncIterator[Any], field: str) -> AsyncIterator[Any]:
        async for page in pages:
            for each in getattr(page, field):
                yield each

    async def values(self, prefix: str = "") -> AsyncIterator[Any]:
        """The values, in the order of their keys."""
        async for item in self.items(prefix=prefix):
            yield item.value

    def conversations(self, prefix: str = "", *, subtree: bool = False) -> AsyncIterator[ConversationInfo]:
        """The conversations, by name."""
        op = Conversations(self.namespace, prefix, subtree, flows.PAGE)
        return self._flattened(self._pages(op, None), "conversations")

    def namespaces(self) -> AsyncIterator[NamespaceInfo]:
        """This namespace, if it holds something, and those below it."""
        return self._flattened(self._pages(Namespaces(self.namespace, limit=flows.PAGE), None), "namespaces")

    # ── search ──

    async def search(
        self,
        query: str,
        limit: int = 10,
        *,
        where: dict[str, Any] | None = None,
        kinds: str | Iterable[str] | None = None,
        conversation: str | None = None,
        tags: Iterable[str] = (),
        author: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        around: int = 0,
        explain: bool = False,
        subtree: bool = False,
    ) -> list[Hit]:
        """The items and messages that answer a query best, best first."""
        op = flows.search_op(
            self.namespace, query, limit, where=where, kinds=kinds, conversation=conversation, tags=tags, author=author,
            since=since, until=until, around=around, explain=explain, subtree=subtree,
        )  # fmt: skip
        if self._embedding is not None:
            op = await self._with_vector(op, self._embedding)
        hits: list[Hit] = (await self.ask(op)).hits
        return hits

    async def _with_vector(self, op: Search, given: Embedding) -> Search:
        steps = embedding.with_vector(op, given.model)
        op, more = await embedding.drive_async(steps, self.execute, given)
        if more:
            embedding.as_task(op, given, self._opened().execute)
        return op

    async def embed(
        self, *, replace: bool = False, subtree: bool = False, progress: Callable[[int, int], object] | None = None
    ) -> int:
        """Embed everything that is searched and has no vector yet."""
        given = embedding.needed(self._embedding)
        steps = embedding.everything(
            self.namespace, given.model, replace=replace, subtree=subtree, progress=progress, pauses=embedding.TRIES
        )
        return await embedding.drive_async(steps, self.execute, given)

    async def context(
        self,
        query: str,
        max_tokens: int = 1_000,
        *,
        limit: int = 20,
        around: int = 1,
        conversation: str | None = None,
        kinds: str | Iterable[str] | None = None,
        where: dict[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        subtree: bool = False,
        counter: Callable[[str], int] | None = None,
    ) -> str:
        """The memories that answer a query best, as a block to put into a prompt."""
        hits = await self.search(
            query, limit, where=where, kinds=kinds, conversation=conversation, since=since, until=until, around=around,
            subtree=subtree,
        )  # fmt: skip
        return flows.context_block(hits, max_tokens, counter)

    # ── conversations ──

    def conversation(self, name: str) -> AsyncConversation:
        """A conversation of this namespace."""
        check_name(name, "conversation")
        return AsyncConversation(self, name)

    # ── the feed ──

    async def cursor(self, *, subtree: bool = False) -> str:
        """The end of the feed now."""
        cursor: str = (await self.ask(Changes(self.namespace, None, subtree))).cursor
        return cursor

    async def changes(self, after: str | None = None, *, subtree: bool = False, limit: int = 100) -> list[Change]:
        """The next changes behind a cursor, without waiting for any."""
        changes: list[Change] = (await self.ask(Changes(self.namespace, after, subtree, limit))).changes
        return changes

    async def watch(
        self, after: str | None = None, *, timeout: float | None = None, subtree: bool = False
    ) -> AsyncIterator[Change]:
        """Changes as they happen, from the first step of the iteration or behind a cursor."""
        cursor = await self.cursor(subtree=subtree) if after is None else after
        while True:
            page = await self.ask(Changes(self.namespace, cursor, subtree, flows.PAGE))
            for change in page.changes:
                yield change
            cursor = page.cursor
            if page.changes or page.more:
                continue
            patience = HEARTBEAT if timeout is None else timeout
            if not await self._opened().wait(self.namespace, cursor, patience, subtree=subtree) and timeout is not None:
                return

    # ── the whole namespace ──

    async def clear(self) -> Removed:
        """Delete all items and conversations."""
        removed: Removed = await self.ask(Clear(self.namespace))
        return removed

    async def erase(self, key: str | None = None, *, conversation: str | None = None, subtree: bool = False) -> Erased:
        """Destroy this namespace, or one key or conversation of it, with all its past."""
        erased: Erased = await self.ask(Erase(self.namespace, key, conversation, subtree))
        return erased

    async def stats(self) -> NamespaceInfo:
        """How much the namespace holds, today's writes, and its policy."""
        info: NamespaceInfo = await self.ask(Describe(self.namespace))
        return info

    async def configure(
        self,
        *,
        history: int | bool | None = None,
        max_age: Ttl = None,
        feed: int | None = None,
        feed_max_age: Ttl = None,
        max_value_bytes: int | None = None,
        messages: int | None = None,
        messages_max_age: Ttl = None,
        max_items: int | None = None,
        max_bytes: int | None = None,
        writes_per_day: int | None = None,
        index: bool | None = None,
        whole_store: bool = False,
    ) -> NamespaceInfo:
        """Set what this namespace keeps and how much."""
        policy = flows.policy_of(
            history,
            max_age,
            feed_max_age,
            messages_max_age,
            index,
            feed=feed,
            max_value_bytes=max_value_bytes,
            messages=messages,
            max_items=max_items,
            max_bytes=max_bytes,
            writes_per_day=writes_per_day,
        )
        info: NamespaceInfo = await self.ask(Configure("" if whole_store else self.namespace, policy))
        return info

    # ── moving ──

    async def records(self, *, stored: bool = False) -> AsyncIterator[DumpRecord]:
        """Everything in the namespace, as records."""
        op: Dump | None = Dump(self.namespace, stored=stored)
        while op is not None:
            page = await self.ask(op)
            for record in page.records:
                yield record
            op = flows.next_page(op, page, None)

    async def load(
        self, batches: Iterable[list[DumpRecord]] | AsyncIterable[list[DumpRecord]], *, origin: str | None = None
    ) -> NamespaceInfo:
        """Take in records, into an empty namespace."""
        started = False
        try:
            async for batch in _each(batches):
                await self.ask(Load(self.namespace, batch, origin))
                started = True
        except BaseException:
            if started:
                await self.ask(Erase(self.namespace))
            raise
        return await self.stats()

    async def export(self, target: str | os.PathLike[str] | BinaryIO) -> EndRecord:
        """Write everything as JSON Lines to a file or binary stream."""
        if not isinstance(target, str | os.PathLike):
            return await self._export(target)
        with transfer.replacing(target) as stream:
            return await self._export(stream)

    async def _export(self, stream: BinaryIO) -> EndRecord:
        record: DumpRecord | None = None
        stream.write(transfer.first_line(self.namespace))
        async for record in self.records(stored=True):
            stream.write(transfer.line(record))
        assert isinstance(record, EndRecord)  # a dump ends with it
        return record

    async def import_(self, source: str | os.PathLike[str] | BinaryIO) -> NamespaceInfo:
        """Read an export into this namespace, which must be empty."""
        if not isinstance(source, str | os.PathLike):
            return await self._import(source)
        with transfer.opened(source) as stream:
            return await self._import(stream)

    async def _import(self, stream: BinaryIO) -> NamespaceInfo:
        origin, batches = transfer.read_export(stream)
        return await self.load(batches, origin=origin)

    async def copy_to(self, target: AsyncMemory) -> NamespaceInfo:
        """Copy everything into another memory, which must be empty."""
        return await target.load([record] async for record in self.records())

    async def __aiter__(self) -> AsyncIterator[str]:
        async for page in self._pages(flows.scan_op(self.namespace, values=False), None):
            for item in page.items:
                yield item.key

    def __bool__(self) -> bool:
        return True  # an empty memory is still a memory


async def _each(batches: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield batch
    else:
        for batch in batches:
            yield batch
