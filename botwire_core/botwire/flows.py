"""What the verbs of a memory do, without doing any I/O.

A flow is a generator: it yields batches of ops, is sent their results (or has their error thrown in), and
returns the verb's answer. `Memory` drives it with a store, `AsyncMemory` with an async one; that is all in which the
two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw

from . import values
from .errors import Conflict, InvalidInput, NotFound
from .names import check_name, check_tags
from .ops import (
    DEFAULTS,
    NO_META,
    UNSEARCHED,
    Delete,
    Fields,
    Get,
    History,
    Hit,
    Item,
    Message,
    Meta,
    Op,
    Policy,
    Put,
    Revision,
    Scan,
    Search,
    Stamp,
    check_fields,
    microseconds,
)

if TYPE_CHECKING:
    from .search.context import Piece

T = TypeVar("T")
Flow = Generator[Sequence[Op], list[Any], T]
Ttl = float | timedelta | None
Moment = int | datetime | None

MAX_TRIES = 1_000  # compare-and-set lost this often in a row means that something else is wrong
PAGE = 500


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────


def seconds(ttl: Ttl) -> float | None:
    """A span of time in seconds."""
    return ttl.total_seconds() if isinstance(ttl, timedelta) else ttl


def moment_fields(as_of: Moment) -> tuple[int | None, int | None]:
    """A version or an aware datetime, as the two fields of an op."""
    if isinstance(as_of, datetime):
        return None, microseconds(as_of)
    if as_of is not None and (isinstance(as_of, bool) or not isinstance(as_of, int) or as_of < 0):
        raise InvalidInput(f"as_of={as_of!r} must be a version (an integer from 0 up) or an aware datetime")
    return as_of, None


def meta_of(
    tags: Iterable[str], author: str | None, restored: int | None = None, index: bool | Iterable[str] | None = None
) -> Meta:
    """What stands beside a value."""
    if not tags and author is None and restored is None and index is None:
        return NO_META
    if author is not None:
        check_name(author, "author")
    return Meta(check_tags(tags), author, restored, index_fields(index))


def index_fields(index: bool | Iterable[str] | None) -> Fields:
    """What search finds of a value: all, nothing, or single fields of it."""
    if isinstance(index, str):
        raise InvalidInput(f"index takes True, False or a list of fields: write index=[{index!r}]")
    fields = index if index is None or isinstance(index, bool) else tuple(index)
    check_fields(fields)
    return fields


def put_op(
    namespace: str,
    key: str,
    value: Any,
    ttl: Ttl = None,
    if_version: int | None = None,
    tags: Iterable[str] = (),
    author: str | None = None,
    *,
    history: bool = True,
    index: bool | Iterable[str] | None = None,
) -> Put:
    """The op that sets a value."""
    raw = Raw(values.encode(value, _NO_LIMIT))  # how much is too much is the store's policy to say
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if tags or author is not None:
        meta = meta_of(tags, author, None, index)
    else:
        meta = NO_META if index is None else UNSEARCHED if index is False else meta_of((), None, None, index)
    return Put(namespace, key, raw, ttl, if_version, meta, history)


_NO_LIMIT = 1 << 62


def item_of(op: Put, stamp: Stamp) -> Item:
    """The item that a put has made."""
    return Item(op.raw, op.key, stamp.version, stamp.created, stamp.updated, stamp.expires, op.meta, op.namespace)


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


def get_many(namespace: str, keys: Iterable[str]) -> Flow[dict[str, Any]]:
    """The values of those keys that are there."""
    if isinstance(keys, str):
        raise InvalidInput(f"get_many takes a list of keys: write [{keys!r}]")
    wanted = list(keys)
    for key in wanted:
        check_name(key, "key")
    wanted = list(dict.fromkeys(wanted))
    results = (yield [Get(namespace, key) for key in wanted]) if wanted else []
    return {item.key: item.value for item in results if item is not None}


def set_many(
    namespace: str, entries: Mapping[str, Any], ttl: Ttl, tags: Iterable[str], author: str | None
) -> Flow[list[Item]]:
    """Set several values, all or none."""
    if not isinstance(entries, Mapping):
        raise InvalidInput(f"set_many takes a dict of keys and values, not {type(entries).__name__}")
    tags = tuple(tags) if not isinstance(tags, str) else tags
    ops = [put_op(namespace, key, value, ttl, None, tags, author) for key, value in entries.items()]
    stamps = (yield ops) if ops else []
    return [item_of(op, stamp) for op, stamp in zip(ops, stamps, strict=True)]


def increment(namespace: str, key: str, by: float, initial: float, author: str | None) -> Flow[Any]:
    """Add to a number. Returns the sum."""

    def add(old: Any) -> Any:
        number = initial if old is None else old
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InvalidInput(
                f"{key!r} in {namespace!r} holds {str(number)[:60]!r}, which is no number: it cannot be incremented"
            )
        return number + by

    item = yield from update(namespace, key, add, author=author)
    return item.value


def update(
    namespace: str, key: str, change: Callable[[Any], Any], *, ttl: Ttl = None, author: str | None = None
) -> Flow[Item]:
    """Read, change, and set if nobody else has in between; else again. What expires goes on expiring when it did."""
    for _ in range(MAX_TRIES):
        [item] = yield [Get(namespace, key)]
        op = updated_op(namespace, key, item, change(None if item is None else item.value), ttl=ttl, author=author)
        try:
            [stamp] = yield [op]
        except Conflict:
            continue
        return item_of(op, stamp)
    raise Conflict(f"{key!r} in {namespace!r} was changed by others {MAX_TRIES:,} times in a row: try again later")


def updated_op(namespace: str, key: str, item: Item | None, value: Any, *, ttl: Ttl, author: str | None) -> Put:
    """The op that sets a value in the place of an item as it was read."""
    meta = NO_META if item is None else item.meta
    version = 0 if item is None else item.version
    op = put_op(namespace, key, value, ttl, version, meta.tags, author, index=meta.index)
    if ttl is None and item is not None and item.expires is not None:
        return msgspec.structs.replace(op, expires=item.expires)
    return op


def setdefault(namespace: str, key: str, default: Any, ttl: Ttl, author: str | None) -> Flow[Any]:
    """The value, after setting it to the default if there was none."""
    op = put_op(namespace, key, default, ttl, 0, (), author)
    while True:
        [item] = yield [Get(namespace, key)]
        if item is not None:
            return item.value
        try:
            yield [op]
        except Conflict:
            continue
        return values.decode(op.raw)


def undo(namespace: str, key: str, author: str | None) -> Flow[Item | None]:
    """Bring back the value before this one; undo again goes further back. `None`: there is none."""
    while True:
        [revisions] = yield [History(namespace, key, 10_000)]
        target = before(revisions)
        if target is None:
            return None
        current = revisions[0]
        origin = target.meta.restored or target.version
        meta = Meta(target.meta.tags, author or target.meta.author, origin, target.meta.index)
        version = 0 if current.deleted else current.version
        op = Put(namespace, key, target.raw, None, version, meta, expires=target.expires)
        try:
            [stamp] = yield [op]
        except Conflict:
            continue
        return item_of(op, stamp)


def before(revisions: Sequence[Revision]) -> Revision | None:
    """The revision that an undo brings back: the newest value that is older than what the current one stands for."""
    if not revisions:
        return None
    current = revisions[0]
    origin = current.version if current.deleted else current.meta.restored or current.version
    return next((each for each in revisions[1:] if each.version < origin and not each.deleted), None)


def pop(namespace: str, key: str, *default: Any) -> Flow[Any]:
    """Take a value away and return it."""
    if len(default) > 1:
        raise InvalidInput("pop takes a key and at most one default")
    while True:
        [item] = yield [Get(namespace, key)]
        if item is None:
            if default:
                return default[0]
            raise NotFound(f"no {key!r} in {namespace!r}")
        try:
            yield [Delete(namespace, key, item.version)]
        except Conflict:
            continue
        return item.value


# ── listings ────────────────────────────────────────────────────────────────────────────────────────


def next_page(op: Any, page: Any, left: int | None) -> Any:
    """The op for the page behind this one, or `None`."""
    if page.cursor is None or left == 0:
        return None
    limit = op.limit if left is None else min(op.limit, left)
    return msgspec.structs.replace(op, cursor=page.cursor, limit=limit)


def all_keys(namespace: str, prefix: str) -> Flow[list[str]]:
    """Every key, sorted."""
    op: Scan | None = Scan(namespace, prefix, values=False, limit=PAGE)
    keys: list[str] = []
    while op is not None:
        [page] = yield [op]
        keys.extend(item.key for item in page.items)
        op = next_page(op, page, None)
    return keys


def scan_op(
    namespace: str,
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
    values: bool = True,
) -> Scan:
    """The op that lists items."""
    if order not in ("key", "updated"):
        raise InvalidInput(f"order={order!r} must be 'key' or 'updated'")
    if limit is not None and limit < 0:
        raise InvalidInput(f"limit={limit} must be zero or more")
    return Scan(
        namespace,
        prefix,
        where,
        check_tags(tags),
        author,
        None if since is None else microseconds(since),
        order,  # type: ignore[arg-type]  # checked above
        reverse,
        values,
        subtree,
        PAGE if limit is None else min(PAGE, limit),
    )


def search_op(
    namespace: str,
    query: str,
    limit: int,
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
) -> Search:
    """The op that searches."""
    for name, number in (("limit", limit), ("around", around)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidInput(f"{name}={number!r} must be a whole number")
    if isinstance(query, str) and not query.isascii():
        query = query.encode("utf-8", "replace").decode()  # half a surrogate pair is no word, and cannot be sent
    if kinds is not None:
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    return Search(
        namespace,
        query,
        limit,
        where,
        kinds,  # type: ignore[arg-type]  # checked by the op
        conversation,
        check_tags(tags),
        author,
        None if since is None else microseconds(since),
        None if until is None else microseconds(until),
        around,
        explain,
        subtree,
    )


def pieces(hits: Iterable[Hit]) -> list[Piece]:
    """Hits as what may go into a prompt: with the messages around them, each of them once."""
    from .search.context import Piece  # only where it is used

    found: list[Piece] = []
    seen: set[tuple[str, str, int]] = set()
    for hit in hits:
        if hit.item is not None:
            found.append(Piece("item", hit.item.key, hit.item.updated_at, hit.text, hit.item.author, hit.terms))
            continue
        for message in (*hit.before, hit.message, *hit.after):
            assert message is not None  # a hit without an item has one
            place = (message.namespace, message.conversation, message.version)
            if place not in seen:
                seen.add(place)
                text = texts_of(message)
                found.append(
                    Piece("message", message.conversation, message.at, text, message.author or message.role, hit.terms)
                )
    return found


def context_block(hits: Iterable[Hit], max_tokens: int, counter: Callable[[str], int] | None) -> str:
    """Hits as a block to put into a prompt."""
    from .search import context  # only where it is used

    return context.block(pieces(hits), max_tokens, counter or context.estimate)


def texts_of(message: Message) -> str:
    """What a message says."""
    from .search import texts  # only where it is used

    return texts.of_message(message.value)


def policy_of(
    history: int | bool | None,
    max_age: Ttl,
    feed_max_age: Ttl,
    messages_max_age: Ttl,
    index: bool | None = None,
    **counts: int | None,
) -> Policy:
    """The arguments of `configure` as a policy. `history=False` turns it off, `True` is the default."""
    return Policy(
        history=DEFAULTS.history
        if history is True
        else None
        if history is None
        else int(history)
        if isinstance(history, bool)
        else history,
        max_age=seconds(max_age),
        feed_max_age=seconds(feed_max_age),
        messages_max_age=seconds(messages_max_age),
        index=index,
        **counts,
    )
