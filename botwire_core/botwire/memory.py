"""`Memory`: a namespace over a store, as a mapping and more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, overload

from . import flows, values
from .errors import BotWireError, NotFound
from .flows import Flow, Moment, Ttl
from .handle import Handle
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
from .stores.base import Store
from .values import decode

if TYPE_CHECKING:
    from .async_memory import AsyncMemory
    from .batch import Batch
    from .conversation import Conversation
    from .embedding import Embedding

T = TypeVar("T")
D = TypeVar("D")

HEARTBEAT = 30.0  # seconds that one wait for changes lasts at most


class Memory(Handle):
    """A memory that stays: a namespace of keys and conversations, kept in a store.

    Args:
        namespace: the bucket, such as `"user-42"`; `/` makes levels.
        url: where it is kept: `sqlite:///file.db`, `sqlite://` (in memory), a server's `http(s)://host:port`; by
            default `BOTWIRE_URL`, else a file in the user's data directory.
        timeout: seconds to wait for a server; a local store has no use for it.
        base_url: another name for `url`, as in botwire 0.2.
        api_key: what a server knows its caller by; by default `BOTWIRE_API_KEY`.
        store: a store object instead of a URL; it is yours to close.
        durability: `"full"` (an acknowledged write survives power loss) or `"relaxed"`; of SQLite stores only.
        author: who writes, noted beside every value unless `set` says otherwise.
        encryption_key: values and messages are encrypted before they leave this process; `botwire keygen` makes one.
            Several: the first one encrypts, all of them decrypt.
        hide_keys: encrypt the names of keys and conversations too.
        embedder: lets `search` find by meaning, too: a callable from a list of texts to their vectors, or
            `"openai:MODEL"`, `"openai:MODEL@URL"`, `"sentence-transformers:MODEL"`, `"fastembed:MODEL"`.

    Arguments are checked here; the store is opened by the first use.

    >>> memory = Memory("user-42", url="sqlite://")
    >>> memory.set("coffee", "Ethiopian Yirgacheffe")
    Item('coffee', 'Ethiopian Yirgacheffe', version=1)
    >>> memory.get("coffee")
    'Ethiopian Yirgacheffe'

    """

    __slots__ = ()

    _encrypted = "Encrypted"
    _store: Store | None

    # ── plumbing ──

    def _opened(self) -> Store:
        store = self._store
        if store is None:
            store = self._store = self._wrapped(self._acquire().store)
        return store

    def execute(self, ops: Sequence[Op], *, request_id: str | None = None) -> list[Any]:
        """Run ops, all or nothing: what everything else here is made of. See `botwire.ops`."""
        return (self._store or self._opened()).execute(ops, request_id=request_id)

    def ask(self, op: Op) -> Any:
        """Run one op."""
        return (self._store or self._opened()).execute((op,))[0]

    def run(self, flow: Flow[T]) -> T:
        """Run a flow: see `botwire.flows`."""
        try:
            ops = next(flow)
            while True:
                try:
                    results = self.execute(ops)
                except BotWireError as error:
                    ops = flow.throw(error)
                else:
                    ops = flow.send(results)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the flow's T

    def _pages(self, op: Any, limit: int | None) -> Iterator[Any]:
        """Every page of a listing."""
        while op is not None:
            page = self.ask(op)
            if limit is not None and isinstance(op, Scan):
                limit -= len(page.items)
            yield page
            op = flows.next_page(op, page, limit)

    def close(self) -> None:
        """Let go of the store; it is closed when its last user in this process does. Using the memory reopens it."""
        if self._given is not None:
            return  # it is the caller's to close
        self._store = None
        if (shared := self._release()) is not None:
            shared.store.close()

    def twin(self) -> AsyncMemory:
        """The same memory for an event loop: same namespace, same store."""
        from .async_memory import AsyncMemory  # brings asyncio: only when it is asked for

        return self._twin(AsyncMemory)

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── values ──

    @overload
    def get(self, key: str, default: Any = None, *, as_of: Moment = None) -> Any: ...
    @overload
    def get(self, key: str, default: D, *, type: type[T], as_of: Moment = None) -> T | D: ...
    @overload
    def get(self, key: str, default: None = None, *, type: type[T], as_of: Moment = None) -> T | None: ...
    def get(self, key: str, default: Any = None, *, type: Any = None, as_of: Moment = None) -> Any:
        """The value of a key, or `default`.

        `type` gives it back as a dataclass, pydantic model or any type msgspec knows. `as_of` reads it as it was at a
        version or an aware datetime, and raises `HistoryExpired` for a moment before the history that is kept.
        """
        if as_of is None:
            raw = (self._store or self._opened()).execute((Value(self.namespace, key),))[0]
        else:
            item = self.item(key, as_of=as_of)
            raw = None if item is None else item.raw
        if raw is None:
            return default
        return decode(raw) if type is None else values.decode_as(raw, type)

    def item(self, key: str, *, as_of: Moment = None) -> Item | None:
        """The key with all that stands beside its value: version, times, tags, author. `None` if it is not there."""
        item: Item | None = self.ask(Get(self.namespace, key, *flows.moment_fields(as_of)))
        return item

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
    ) -> Item:
        """Store a value: any JSON, dataclass, datetime, UUID, enum or pydantic model, up to 1 MiB.

        `ttl`: seconds (or a timedelta) after which it can no longer be read. `if_version=n`: only if that is the
        key's version now, 0 for a key that is not there; else `Conflict`. `history=False` keeps nothing of what
        the key held before. `index`: what `search` finds of it: everything, `False` nothing, or these fields alone.
        """
        op = flows.put_op(
            self.namespace, key, value, ttl, if_version, tags, author or self.author, history=history, index=index
        )
        return flows.item_of(op, self.ask(op))

    def delete(self, key: str, *, if_version: int | None = None, history: bool = True) -> bool:
        """Delete a key. True if it was there. Its past stays for `history` and `undo`, unless `history=False`."""
        return self.ask(Delete(self.namespace, key, if_version, history)) is not None

    def touch(self, key: str, ttl: Ttl = None, *, if_version: int | None = None) -> bool:
        """Have a key expire `ttl` seconds from now, or never. True if it is there."""
        return self.ask(Touch(self.namespace, key, flows.seconds(ttl), if_version)) is not None

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that are there, in one round trip."""
        return self.run(flows.get_many(self.namespace, keys))

    def set_many(
        self, entries: Mapping[str, Any], *, ttl: Ttl = None, tags: Iterable[str] = (), author: str | None = None
    ) -> list[Item]:
        """Store several values, all or none, in one round trip."""
        return self.run(flows.set_many(self.namespace, entries, ttl, tags, author or self.author))

    def update(self, key: str, change: Callable[[Any], Any], *, ttl: Ttl = None, author: str | None = None) -> Item:
        """Set the key to `change(its value, or None)`; retried when somebody else was faster, so nothing is lost.

        `change` may be called several times. What expires goes on expiring when it did, unless a `ttl` is given.
        """
        return self.run(flows.update(self.namespace, key, change, ttl=ttl, author=author or self.author))

    def increment(self, key: str, by: float = 1, *, initial: float = 0, author: str | None = None) -> Any:
        """Add to a number, which begins as `initial`. Returns the sum."""
        return self.run(flows.increment(self.namespace, key, by, initial, author or self.author))

    def setdefault(self, key: str, default: Any = None, *, ttl: Ttl = None, author: str | None = None) -> Any:
        """The value of the key, after setting it to `default` if it was not there."""
        return self.run(flows.setdefault(self.namespace, key, default, ttl, author or self.author))

    def batch(self) -> Batch:
        """Collect writes, and make them all or none when the `with` block ends well.

        >>> memory = Memory("team", url="sqlite://")
        >>> with memory.batch() as batch:
        ...     batch.set("a", 1)
        ...     batch.set("b", 2)
        >>> memory.list_keys()
        ['a', 'b']
        """
        from .batch import Batch  # here, so that `import botwire` stays quick

        return Batch(self.namespace, self.author, self.execute)

    # ── history ──

    def history(self, key: str, *, limit: int = 100) -> list[Revision]:
        """What the key was, newest first, the current value included: `.value .version .at .deleted`."""
        revisions: list[Revision] = self.ask(History(self.namespace, key, limit))
        return revisions

    def undo(self, key: str, *, author: str | None = None) -> Item | None:
        """Bring back the value before this one, also after a delete; undo again to go further back.

        Returns the new item, or `None` if there is nothing to undo.
        """
        return self.run(flows.undo(self.namespace, key, author or self.author))

    # ── listings ──

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, sorted."""
        return self.run(flows.all_keys(self.namespace, prefix))

    def list_keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, sorted."""
        return self.keys(prefix)

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
    ) -> Iterator[Item]:
        """Items page by page, by key or `order="updated"`; each unpacks as `key, value`.

        `where` filters on fields of the value (`{"city": {"$in": ["Rome"]}}`, see `botwire.where`), `tags` on those
        that bear all of them, `since` on those set at that time or later. `subtree` adds the namespaces below.
        """
        op = flows.scan_op(
            self.namespace, prefix=prefix, where=where, tags=tags, author=author, since=since, order=order,
            reverse=reverse, subtree=subtree, limit=limit,
        )  # fmt: skip
        return (item for page in self._pages(op, limit) for item in page.items)

    def values(self, prefix: str = "") -> Iterator[Any]:
        """The values, in the order of their keys."""
        return (item.value for item in self.items(prefix=prefix))

    def conversations(self, prefix: str = "", *, subtree: bool = False) -> Iterator[ConversationInfo]:
        """The conversations, by name."""
        op = Conversations(self.namespace, prefix, subtree, flows.PAGE)
        return (each for page in self._pages(op, None) for each in page.conversations)

    def namespaces(self) -> Iterator[NamespaceInfo]:
        """This namespace, if it holds something, and those below it."""
        op = Namespaces(self.namespace, limit=flows.PAGE)
        return (each for page in self._pages(op, None) for each in page.namespaces)

    # ── search ──

    def search(
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
        """The items and messages that answer a query best, best first. It needs no model and no key.

        `where`, `tags` and `author` filter as in `items`; `kinds` is `"item"` or `"message"`, `conversation` one of
        them, `since` and `until` when it was said or set. `around=2` brings the two messages before and after each
        message, `explain` says how a score came about. `subtree` adds the namespaces below.

        >>> memory = Memory("user-43", url="sqlite://")
        >>> memory.set("coffee", "Ethiopian Yirgacheffe")
        Item('coffee', 'Ethiopian Yirgacheffe', version=1)
        >>> memory.search("which coffee?")[0].value
        'Ethiopian Yirgacheffe'
        """
        op = flows.search_op(
            self.namespace, query, limit, where=where, kinds=kinds, conversation=conversation, tags=tags, author=author,
            since=since, until=until, around=around, explain=explain, subtree=subtree,
        )  # fmt: skip
        if self._embedding is not None:
            op = self._with_vector(op, self._embedding)
        hits: list[Hit] = self.ask(op).hits
        return hits

    def _with_vector(self, op: Search, given: Embedding) -> Search:
        """The search with its query's vector; some texts that have none yet are embedded on the way."""
        from . import embedding  # only for those who have an embedder

        op, more = embedding.drive(embedding.with_vector(op, given.model), self.execute, given)
        if more:
            embedding.in_background(op, given, self._opened().execute)
        return op

    def embed(
        self, *, replace: bool = False, subtree: bool = False, progress: Callable[[int, int], object] | None = None
    ) -> int:
        """Embed everything that is searched and has no vector yet. Returns how many texts that were.

        Searches do this little by little; this is for much at once. Cut off, it goes on where it was when it is called
        again. `replace`: in the place of another embedder's vectors. `progress(done, total)` is called now and then.
        """
        from . import embedding  # only for those who have an embedder

        given = embedding.needed(self._embedding)
        steps = embedding.everything(
            self.namespace, given.model, replace=replace, subtree=subtree, progress=progress, pauses=embedding.TRIES
        )
        return embedding.drive(steps, self.execute, given)

    def context(
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
        """The memories that answer a query best, as a block to put into a prompt; empty if there are none.

        Items and messages with their dates, none twice, marked as data, in at most `max_tokens`; `counter(text) -> int`
        counts them, by default they are estimated. `around`: so many messages before and after each come with it.
        """
        hits = self.search(
            query, limit, where=where, kinds=kinds, conversation=conversation, since=since, until=until, around=around,
            subtree=subtree,
        )  # fmt: skip
        return flows.context_block(hits, max_tokens, counter)

    # ── conversations ──

    def conversation(self, name: str) -> Conversation:
        """A conversation of this namespace; it comes to be with its first message."""
        check_name(name, "conversation")
        from .conversation import Conversation  # here, so that `import botwire` stays quick

        return Conversation(self, name)

    # ── the feed ──

    def cursor(self, *, subtree: bool = False) -> str:
        """The end of the feed now: `watch(after=cursor)` goes on from there."""
        cursor: str = self.ask(Changes(self.namespace, None, subtree)).cursor
        return cursor

    def changes(self, after: str | None = None, *, subtree: bool = False, limit: int = 100) -> list[Change]:
        """The next changes behind a cursor (`""`: from the beginning), without waiting for any."""
        changes: list[Change] = self.ask(Changes(self.namespace, after, subtree, limit)).changes
        return changes

    def watch(
        self, after: str | None = None, *, timeout: float | None = None, subtree: bool = False
    ) -> Iterator[Change]:
        """Changes as they happen, from now or behind a cursor; ends after `timeout` seconds without one.

        Keep `change.cursor` to go on later, in another process too. Raises `CursorExpired` when the feed no
        longer reaches back to it; no change is ever skipped silently. It watches from the moment of the call.
        """
        start = self.cursor(subtree=subtree) if after is None else after
        return self._watch(start, timeout, subtree)

    def _watch(self, cursor: str, timeout: float | None, subtree: bool) -> Iterator[Change]:
        while True:
            page = self.ask(Changes(self.namespace, cursor, subtree, flows.PAGE))
            yield from page.changes
            cursor = page.cursor
            if page.changes or page.more:
                continue
            patience = HEARTBEAT if timeout is None else timeout
            if not self._opened().wait(self.namespace, cursor, patience, subtree=subtree) and timeout is not None:
                return

    # ── the whole namespace ──

    def clear(self) -> Removed:
        """Delete all items and conversations. The items' past stays: `undo` brings single ones back."""
        removed: Removed = self.ask(Clear(self.namespace))
        return removed

    def erase(self, key: str | None = None, *, conversation: str | None = None, subtree: bool = False) -> Erased:
        """Destroy this namespace, or one key or conversation of it, with all its past, so that no byte is left.

        `.pending` is true while a reader elsewhere still holds old pages of the file: erase again later.
        """
        erased: Erased = self.ask(Erase(self.namespace, key, conversation, subtree))
        return erased

    def stats(self) -> NamespaceInfo:
        """How much the namespace holds, today's writes, and its policy."""
        info: NamespaceInfo = self.ask(Describe(self.namespace))
        return info

    def configure(
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
        """Set what this namespace keeps and how much; what is left out stays as it is. See `botwire.ops.Policy`.

        `history`: past values kept of a key (`False`: none), each for `max_age`. `messages`, `messages_max_age`: what a
        conversation keeps. `max_items`, `max_bytes`, `writes_per_day`: quotas, 0 for none. `index=False`: search finds
        nothing here but what was set with `index=`. `whole_store` sets the defaults of every namespace.
        """
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
        info: NamespaceInfo = self.ask(Configure("" if whole_store else self.namespace, policy))
        return info

    # ── moving ──

    def records(self, *, stored: bool = False) -> Iterator[DumpRecord]:
        """Everything in the namespace, as records: what `load` takes.

        `stored`: as the store holds it, which for a memory with an encryption key means encrypted.
        """
        op: Dump | None = Dump(self.namespace, stored=stored)
        while op is not None:
            page = self.ask(op)
            yield from page.records
            op = flows.next_page(op, page, None)

    def load(self, batches: Iterable[list[DumpRecord]], *, origin: str | None = None) -> NamespaceInfo:
        """Take in records, into an empty namespace. If they turn out broken, it is left empty again.

        `origin`: the namespace that they are of, if they are those of an export and may be encrypted.
        """
        started = False
        try:
            for batch in batches:
                self.ask(Load(self.namespace, batch, origin))
                started = True
        except BaseException:
            if started:
                self.ask(Erase(self.namespace))
            raise
        return self.stats()

    def export(self, target: str | os.PathLike[str] | BinaryIO) -> EndRecord:
        """Write everything as JSON Lines to a file or binary stream.

        That is values, versions, times, history and conversations; `import_` makes an equal namespace of it.
        """
        from . import transfer  # here, as in all that moves, so that `import botwire` stays quick

        if not isinstance(target, str | os.PathLike):
            return self._export(target)
        with transfer.replacing(target) as stream:
            return self._export(stream)

    def _export(self, stream: BinaryIO) -> EndRecord:
        from . import transfer

        record: DumpRecord | None = None
        stream.write(transfer.first_line(self.namespace))
        for record in self.records(stored=True):
            stream.write(transfer.line(record))
        assert isinstance(record, EndRecord)  # a dump ends with it
        return record

    def import_(self, source: str | os.PathLike[str] | BinaryIO) -> NamespaceInfo:
        """Read an export into this namespace, which must be empty. All or nothing."""
        from . import transfer

        if not isinstance(source, str | os.PathLike):
            return self._import(source)
        with transfer.opened(source) as stream:
            return self._import(stream)

    def _import(self, stream: BinaryIO) -> NamespaceInfo:
        from . import transfer

        origin, batches = transfer.read_export(stream)
        return self.load(batches, origin=origin)

    def copy_to(self, target: Memory) -> NamespaceInfo:
        """Copy everything into another memory, which must be empty: another namespace, or another store."""
        from . import transfer

        return target.load(transfer.in_batches(self.records()))

    # ── the mapping protocol ──

    def __getitem__(self, key: str) -> Any:
        item = self.ask(Get(self.namespace, key))
        if item is None:
            raise NotFound(f"no {key!r} in {self.namespace!r}")
        return item.value

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise NotFound(f"no {key!r} in {self.namespace!r}")

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.ask(Get(self.namespace, key)) is not None

    def __iter__(self) -> Iterator[str]:
        op = flows.scan_op(self.namespace, values=False)
        return (item.key for page in self._pages(op, None) for item in page.items)

    def __len__(self) -> int:
        return self.stats().items

    def __bool__(self) -> bool:
        return True  # an empty memory is still a memory

    def pop(self, key: str, *default: Any) -> Any:
        """Take a value away and return it; `KeyError` if it is not there and no default is given."""
        return self.run(flows.pop(self.namespace, key, *default))


def __getattr__(name: str) -> Any:
    if name in ("BotWireChatHistory", "memory_tools"):  # botwire 0.2 had them here
        import botwire  # whose table of lazy names is the one place that imports by name

        return getattr(botwire, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
