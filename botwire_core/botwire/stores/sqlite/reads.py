"""What the reading ops do, each as a function of `sql` (a cursor's execute), the time, and the op.

They run inside one read transaction, or inside a write that reads. Nothing here knows who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from botwire import cursors, revisions
from botwire.errors import CursorExpired
from botwire.names import check_prefix, is_name
from botwire.ops import (
    DEFAULTS,
    MICROSECONDS,
    Change,
    ChangePage,
    Changes,
    ConversationInfo,
    ConversationPage,
    Conversations,
    Describe,
    Get,
    History,
    Item,
    ItemPage,
    Message,
    MessagePage,
    Messages,
    NamespaceInfo,
    NamespacePage,
    Namespaces,
    Op,
    Policy,
    Revision,
    Scan,
    Value,
)
from botwire.revisions import Past, PastRevision
from botwire.where import check_where, matches

from .ledger import CLEARED, DAY, KINDS, ON_CONVERSATION, read_policy

Sql = Callable[..., Any]

SCANNED_PER_PAGE = 20_000  # rows that a filtered page looks at before it answers with what it has
PAGE_BYTES = 16 * 1024 * 1024  # of values: a page ends before its limit when it holds so much

GET = "SELECT value, version, created, updated, expires, meta FROM items WHERE namespace = ? AND key = ?"
VALUE = "SELECT value, expires FROM items WHERE namespace = ? AND key = ?"
NAMESPACE_ID = "SELECT id FROM namespaces WHERE name = ?"
_NULL = Raw(b"null")


class View(msgspec.Struct):
    """What reading needs to know of a namespace."""

    id: int
    version: int
    floor: int
    floor_at: int
    feed_floor: int
    policy: Policy


def view(sql: Sql, name: str) -> View | None:
    """The namespace as reading needs it, or `None` if there is none."""
    row = sql(
        "SELECT id, version, floor, floor_at, feed_floor, policy, (SELECT policy FROM store) "
        "FROM namespaces WHERE name = ?",
        (name,),
    ).get
    if row is None:
        return None
    number, version, floor, floor_at, feed_floor, own, stored = row
    policy = read_policy(own).over(read_policy(stored).over(DEFAULTS))
    return View(number, version, floor, floor_at, feed_floor, policy)


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


def item_of(row: tuple[Any, ...] | None, key: str, now: int, namespace: str) -> Item | None:
    """The item of a `GET` row, unless it is deleted or past its time."""
    if row is None:
        return None
    value, version, created, updated, expires, meta = row
    if value is None or (expires is not None and expires <= now):
        return None
    return Item(Raw(value), key, version, created, updated, expires, revisions.read_meta(meta), namespace)


def get(sql: Sql, now: int, op: Get) -> Item | None:
    """One item, now or as of a moment."""
    op.check_names()
    namespace = view(sql, op.namespace)
    if namespace is None:
        return None
    if op.as_of is None and op.as_of_time is None:
        return item_of(sql(GET, (namespace.id, op.key)).get, op.key, now, op.namespace)
    return _get_as_of(sql, now, op, namespace)


def value(sql: Sql, now: int, op: Value) -> Raw | None:
    """The value of one item."""
    found = get(sql, now, Get(op.namespace, op.key))
    return None if found is None else found.raw


def _get_as_of(sql: Sql, now: int, op: Get, namespace: View) -> Item | None:
    floor = (namespace.floor, namespace.floor_at)
    kept, complete, created, since = _revisions(sql, now, namespace, op.key)
    if kept:
        kept[0] = (since, *kept[0][1:])  # a touch gives a new version to a value that was there before
    held = revisions.as_of(kept, complete, floor, version=op.as_of, time=op.as_of_time)
    if held is None or not revisions.is_live(held, now):
        return None
    return revisions.to_item(op.key, created, held, op.namespace)


def _revisions(sql: Sql, now: int, namespace: View, key: str) -> tuple[list[PastRevision], bool, int, int]:
    """The readable revisions of a key, whether they are all, when it was created, and since which version it is
    what it is now.
    """
    row = sql(
        "SELECT version, updated, expires, meta, value, past, created FROM items WHERE namespace = ? AND key = ?",
        (namespace.id, key),
    ).get
    if row is None:
        return [], True, 0, 0
    *current, packed, created = row
    past = revisions.unpack(packed)
    older = older_revisions(sql, namespace.id, key, past)
    everything = [*past.revisions, *older]
    kept, complete = revisions.readable(tuple(current), everything, past.complete, now, namespace.policy)
    return kept, complete, created, past.since or row[0]


def older_revisions(sql: Sql, namespace: int, key: str, past: Past) -> list[PastRevision]:
    """The part of a past that stands in pages of its own, newest first."""
    if not past.pages:
        return []
    pages = sql(
        "SELECT page FROM revisions WHERE namespace = ? AND key = ? ORDER BY version DESC", (namespace, key)
    ).fetchall()
    return revisions.unpack_pages(page for (page,) in pages)


def history(sql: Sql, now: int, op: History) -> list[Revision]:
    """The revisions of a key, newest first."""
    namespace = view(sql, op.namespace)
    if namespace is None:
        return []
    kept, _, _, _ = _revisions(sql, now, namespace, op.key)
    return revisions.history(kept, now)[: op.limit]


def after_prefix(prefix: str) -> str | None:
    """The first string behind all that begin with the prefix, in code point order; `None` if there is none.

    >>> after_prefix("user_")
    'user`'
    """
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


def scope(namespace: str, *, subtree: bool, column: str = "n.name") -> tuple[str, list[Any]]:
    """The SQL condition for a namespace, or for everything at and below it."""
    if not subtree:
        return f"{column} = ?", [namespace]
    if not namespace:
        return f"NOT ({column} >= '.' AND {column} < '/')", []  # hidden ones begin with a dot: `names.is_hidden`
    return (
        f"{column} >= ? AND {column} < ? AND ({column} = ? OR {column} > ?)",
        [namespace, namespace + "0", namespace, namespace + "/"],
    )


def scan(sql: Sql, now: int, op: Scan) -> ItemPage:
    """A page of items."""
    if op.where is not None:
        check_where(op.where)
    fetch = _scanner(sql, now, op)
    items: list[Item] = []
    after, scanned, size = op.cursor, 0, 0
    while len(items) < op.limit and scanned < SCANNED_PER_PAGE:
        wanted = op.limit - len(items) + 1 if not _filters(op) else max(100, op.limit)
        end = scanned + wanted
        for row in fetch(after, wanted):
            if len(items) == op.limit or size >= PAGE_BYTES:
                return ItemPage(items, after)
            item = _scanned(row, op)
            after, scanned = _place(item, op), scanned + 1
            if _passes(item, op):
                items.append(item if op.values else msgspec.structs.replace(item, raw=_NULL))
                size += answer_bytes(items[-1])
        if scanned < end:
            return ItemPage(items, None)
    return ItemPage(items, after)


def _filters(op: Scan) -> bool:
    return bool(op.where or op.tags or op.author)


def _scanned(row: tuple[Any, ...], op: Scan) -> Item:
    namespace, key, value, version, created, updated, expires, meta = row
    raw = Raw(value) if value is not None else _NULL
    return Item(raw, key, version, created, updated, expires, revisions.read_meta(meta), namespace)


def _place(item: Item, op: Scan) -> str:
    if op.order == "key":
        return cursors.page(item.namespace, item.key)
    return cursors.page(item.updated, item.namespace, item.key)


def _passes(item: Item, op: Scan) -> bool:
    if op.tags and not set(op.tags) <= set(item.meta.tags):
        return False
    if op.author is not None and item.meta.author != op.author:
        return False
    return op.where is None or matches(item.value, op.where)


def _scanner(sql: Sql, now: int, op: Scan) -> Callable[[str | None, int], Iterator[tuple[Any, ...]]]:
    """A function that fetches some rows behind a cursor, one by one: they may be large."""
    condition, bindings = scope(op.namespace, subtree=op.subtree)
    conditions = [condition, "i.value IS NOT NULL", "(i.expires IS NULL OR i.expires > ?)"]
    bindings.append(now)
    if op.prefix:
        check_prefix(op.prefix, "prefix")
        conditions.append("i.key >= ?")
        bindings.append(op.prefix)
        if (end := after_prefix(op.prefix)) is not None:
            conditions.append("i.key < ?")
            bindings.append(end)
    if op.since is not None:
        conditions.append("i.updated >= ?")
        bindings.append(op.since)
    value = "i.value" if op.values or op.where else "NULL"
    order = ("n.name", "i.key") if op.order == "key" else ("i.updated", "n.name", "i.key")
    types = (str, str) if op.order == "key" else (int, str, str)
    compare, direction = ("<", " DESC") if op.reverse else (">", "")

    def fetch(after: str | None, count: int) -> Iterator[tuple[Any, ...]]:
        where, bound = list(conditions), list(bindings)
        if after is not None:
            place = cursors.sort_key(after, *types)
            if op.order == "key":
                where.append(f"n.name {compare}= ?")
                bound.append(place[0])
                if not op.subtree:
                    where.append(f"i.key {compare}= ?")
                    bound.append(place[1])
            where.append(f"({', '.join(order)}) {compare} ({', '.join('?' * len(order))})")
            bound.extend(place)
        rows: Iterator[tuple[Any, ...]] = sql(
            f"SELECT n.name, i.key, {value}, i.version, i.created, i.updated, i.expires, i.meta "
            f"FROM namespaces n CROSS JOIN items i ON i.namespace = n.id WHERE {' AND '.join(where)} "
            f"ORDER BY {', '.join(column + direction for column in order)} LIMIT ?",
            (*bound, count),
        )
        return rows

    return fetch


# ── conversations ───────────────────────────────────────────────────────────────────────────────────

MESSAGE = "place & 4294967295, id, created, role, author, edited, redacted, value, unsearched"
SYSTEM_ROLES = ("system", "developer")


def place_range(conversation: int, after: int | None = None, before: int | None = None) -> tuple[int, int]:
    """The first and last place of a conversation's messages between two versions, exclusive."""
    low = (conversation << 32) + (0 if after is None else min(after + 1, 2**32))
    high = ((conversation + 1) << 32) - 1 if before is None else (conversation << 32) + min(before, 2**32) - 1
    return low, high


def message_id_place(sql: Sql, conversation: int, message_id: str) -> int | None:
    """The place of a message by its id: a given one, or `#<version>`."""
    if not is_name(message_id):
        return None
    if message_id.startswith("#"):
        number = message_id[1:]
        if not (number.isascii() and number.isdigit() and int(number) < 2**32):
            return None
        place = conversation << 32 | int(number)
        found: int | None = sql("SELECT place FROM messages WHERE place = ? AND id IS NULL", (place,)).get
    else:
        found = sql("SELECT place FROM messages WHERE place >> 32 = ? AND id = ?", (conversation, message_id)).get
    return found


def message_of(row: tuple[Any, ...], conversation: str, namespace: str) -> Message:
    """A message of a `MESSAGE` row."""
    version, message_id, created, role, author, edited, redacted, value, unsearched = row
    name = message_id or f"#{version}"
    return Message(
        Raw(value),
        name,
        version,
        created,
        role,
        author,
        edited,
        bool(redacted),
        conversation,
        namespace,
        not unsearched,
    )


def messages(sql: Sql, now: int, op: Messages) -> MessagePage:
    """A page of a conversation's messages."""
    row = sql(
        "SELECT c.id, n.policy, s.policy FROM conversations c JOIN namespaces n ON n.id = c.namespace, store s "
        "WHERE n.name = ? AND c.name = ?",
        (op.namespace, op.conversation),
    ).get
    if row is None:
        return MessagePage([])
    conversation, own, stored = row
    conditions, bindings = ["place BETWEEN ? AND ?"], list(place_range(conversation, op.after, op.before))
    max_age = read_policy(own).over(read_policy(stored).over(DEFAULTS)).messages_max_age
    if max_age:
        conditions.append("created >= ?")
        bindings.append(now - round(max_age * MICROSECONDS))
    if op.roles is not None:
        conditions.append(_role_condition(op.roles))
    if op.ids is not None:
        places = [message_id_place(sql, conversation, each) for each in op.ids]
        conditions.append(f"place IN ({', '.join(str(place) for place in places if place is not None)})")
    rows = sql(
        f"SELECT {MESSAGE} FROM messages WHERE {' AND '.join(conditions)} "
        f"ORDER BY place{' DESC' if op.reverse else ''} LIMIT ?",
        (*bindings, *([] if op.roles is None or op.roles == SYSTEM_ROLES else op.roles), op.limit + 1),
    )
    found: list[Message] = []
    size = 0
    for each in rows:
        if len(found) == op.limit or size >= PAGE_BYTES:
            return MessagePage(found, more=True)
        found.append(message_of(each, op.conversation, op.namespace))
        size += answer_bytes(found[-1])
    return MessagePage(found)


# ── how much an answer is ───────────────────────────────────────────────────────────────────────────


def answer_bytes(result: Any) -> int:
    """How many bytes of values a result holds."""
    match result:
        case Raw():
            return memoryview(result).nbytes
        case Item() | Revision() | Message():
            return memoryview(result.raw).nbytes
        case ItemPage():
            return sum(map(answer_bytes, result.items))
        case MessagePage():
            return sum(map(answer_bytes, result.messages))
        case list():
            return sum(map(answer_bytes, result))
        case _:
            return 0


def _role_condition(roles: tuple[str, ...]) -> str:
    if roles == SYSTEM_ROLES:  # word for word the condition of the index messages_of_system
        return "role IN ('system', 'developer')"
    return f"role IN ({', '.join('?' * len(roles))})"


def conversations(sql: Sql, now: int, op: Conversations) -> ConversationPage:
    """A page of conversations."""
    condition, bindings = scope(op.namespace, subtree=op.subtree)
    conditions = [condition]
    if op.prefix:
        conditions.append("c.name >= ?")
        bindings.append(op.prefix)
        if (end := after_prefix(op.prefix)) is not None:
            conditions.append("c.name < ?")
            bindings.append(end)
    if op.cursor is not None:
        place = cursors.sort_key(op.cursor, str, str)
        conditions += ["n.name >= ?", "(n.name, c.name) > (?, ?)"]
        bindings += [place[0], *place]
    rows = sql(
        "SELECT c.name, c.messages, c.bytes, c.version, c.created, c.updated, n.name "
        f"FROM namespaces n CROSS JOIN conversations c ON c.namespace = n.id WHERE {' AND '.join(conditions)} "
        "ORDER BY n.name, c.name LIMIT ?",
        (*bindings, op.limit + 1),
    ).fetchall()
    found = [ConversationInfo(*row) for row in rows[: op.limit]]
    cursor = cursors.page(found[-1].namespace, found[-1].name) if len(rows) > op.limit and found else None
    return ConversationPage(found, cursor)


# ── the feed ────────────────────────────────────────────────────────────────────────────────────────


def changes(sql: Sql, now: int, op: Changes) -> ChangePage:
    """A page of the feed."""
    return _changes_below(sql, op) if op.subtree else _changes_in(sql, op)


_FEED = (
    "SELECT c.version, c.updated, c.kind, c.name FROM changes_of_namespace f JOIN changes c ON c.sequence = f.sequence "
    "WHERE f.namespace = ? AND f.version > ? ORDER BY f.version LIMIT ?"
)
_FEED_END = (  # what the index does not know yet is newer than all that it knows
    "SELECT version, updated, kind, name FROM changes WHERE sequence > (SELECT indexed FROM store) "
    "AND namespace = ? AND version > ? ORDER BY sequence LIMIT ?"
)


def _changes_in(sql: Sql, op: Changes) -> ChangePage:
    namespace = view(sql, op.namespace)
    mark = sql("SELECT mark FROM store").get
    head, floor = (mark, mark) if namespace is None else (namespace.version, namespace.feed_floor)
    if op.after is None:
        return ChangePage([], cursors.feed(head, subtree=False))
    position = floor if op.after == "" else cursors.feed_position(op.after, subtree=False)
    _check_position(position, floor, head, op)
    if namespace is None:
        return ChangePage([], cursors.feed(head, subtree=False))
    rows = sql(_FEED, (namespace.id, position, op.limit + 1)).fetchall()
    if len(rows) <= op.limit:
        rows += sql(_FEED_END, (namespace.id, position, op.limit + 1 - len(rows))).fetchall()
    found = [
        _change(kind, version, updated, cursors.feed(version, subtree=False), name, op.namespace)
        for version, updated, kind, name in rows[: op.limit]
    ]
    more = len(rows) > op.limit
    end = cursors.feed(head, subtree=False) if not more else found[-1].cursor if found else op.after
    return ChangePage(found, end, more)


def _changes_below(sql: Sql, op: Changes) -> ChangePage:
    condition, bindings = scope(op.namespace, subtree=True)
    head, trimmed, erased = sql(
        "SELECT max(sequence, coalesce((SELECT max(sequence) FROM changes), 0)), trimmed, erased FROM store"
    ).get
    if op.after is None:
        return ChangePage([], cursors.feed(head, subtree=True))
    floor = sql("SELECT coalesce(max(sequence), 0) FROM feed_cuts WHERE scope = ?", (op.namespace,)).get
    position = floor if op.after == "" else cursors.feed_position(op.after, subtree=True)
    if op.after != "" and position < max(trimmed, erased):
        (below,) = sql(f"SELECT max(n.feed_trimmed) FROM namespaces n WHERE {condition}", bindings).fetchall()[0]
        floor = max(floor, erased if below is None else below)
    _check_position(position, floor, head, op)
    end = min(head, position + SCANNED_PER_PAGE)
    rows = sql(
        "SELECT c.sequence, c.version, c.updated, c.kind, c.name, n.name "
        "FROM changes c CROSS JOIN namespaces n ON n.id = c.namespace "
        f"WHERE c.sequence > ? AND c.sequence <= ? AND {condition} ORDER BY c.sequence LIMIT ?",
        (position, end, *bindings, op.limit + 1),
    ).fetchall()
    found = [
        _change(kind, version, updated, cursors.feed(sequence, subtree=True), name, namespace)
        for sequence, version, updated, kind, name, namespace in rows[: op.limit]
    ]
    if len(rows) > op.limit:
        return ChangePage(found, found[-1].cursor if found else op.after, True)
    return ChangePage(found, cursors.feed(end, subtree=True), end < head)


def _check_position(position: int, floor: int, head: int, op: Changes) -> None:
    if position < floor:
        raise CursorExpired(
            f"the feed of {op.namespace!r} no longer reaches back to {op.after!r}: changes were trimmed or erased. "
            "Read the memory afresh, then watch from now (after=None)"
        )
    if position > head:
        raise CursorExpired(
            f"the cursor {op.after!r} lies ahead of the feed of {op.namespace!r}: it is of another store, or an older "
            "backup was restored. Read the memory afresh, then watch from now (after=None)"
        )


def _change(kind: int, version: int, updated: int, cursor: str, name: str | None, namespace: str) -> Change:
    on_conversation = kind in ON_CONVERSATION or (kind == CLEARED and name is not None)
    return Change(
        kind=KINDS[kind],  # type: ignore[arg-type]  # KINDS are the literals of Change.kind, in the order of their codes
        version=version,
        updated=updated,
        cursor=cursor,
        key=None if on_conversation else name,
        conversation=name if on_conversation else None,
        namespace=namespace,
    )


# ── namespaces ──────────────────────────────────────────────────────────────────────────────────────

_UNINDEXED = (  # changes since the last writing of the index, and what is older than it
    "(SELECT count(*) FROM search_pending p WHERE p.namespace = n.id) + "
    "CASE WHEN s.namespace IS NULL THEN n.items + n.messages WHEN json_extract(s.counts, '$.walk') IS NULL "
    "THEN n.version - s.version "
    "ELSE n.version - s.version + max(0, n.items + n.messages - coalesce(json_extract(s.counts, '$.documents'), 0)) END"
)
_UNEMBEDDED = (
    "CASE WHEN e.namespace IS NULL THEN 0 ELSE "
    "(SELECT count(*) FROM search_documents d WHERE d.namespace = n.id AND d.digest IS NULL) END"
)
_INFO = (
    "n.name, n.version, n.items - (SELECT count(*) FROM items i WHERE i.namespace = n.id AND i.expires <= ?), "
    f"n.messages, n.conversations, n.bytes, n.day, n.writes, n.created, n.updated, n.policy, {_UNINDEXED}, "
    f"{_UNEMBEDDED}"
)
_INFO_FROM = (
    "namespaces n LEFT JOIN search_namespaces s ON s.namespace = n.id "
    "LEFT JOIN search_embedders e ON e.namespace = n.id"
)


def _info(row: tuple[Any, ...], now: int, defaults: Policy) -> NamespaceInfo:
    name, version, items, messages_, talks, size, day, writes, created, updated, own, unindexed, bare = row
    today = writes if day == now // DAY else 0
    policy = read_policy(own).over(defaults)
    return NamespaceInfo(
        name, version, items, messages_, talks, size, today, created, updated, policy, unindexed if policy.index else 0,
        bare,
    )  # fmt: skip


def describe(sql: Sql, now: int, name: str) -> NamespaceInfo:
    """How much a namespace, or with `""` the store, holds."""
    defaults = read_policy(sql("SELECT policy FROM store").get).over(DEFAULTS)
    if name == "":
        seen, bindings = scope("", subtree=True)
        row = sql(
            "SELECT coalesce(sum(n.items), 0) - (SELECT count(*) FROM items i JOIN namespaces n ON n.id = i.namespace "
            f"WHERE i.expires <= ? AND {seen}), coalesce(sum(n.messages), 0), coalesce(sum(n.conversations), 0), "
            f"coalesce(sum(n.bytes), 0), coalesce(min(n.created), 0), coalesce(max(n.updated), 0), "
            f"coalesce(sum({_UNINDEXED}), 0), coalesce(sum({_UNEMBEDDED}), 0) FROM {_INFO_FROM} WHERE {seen}",
            (now, *bindings, *bindings),
        ).get
        items, messages_, talks, size, created, updated, unindexed, bare = row
        return NamespaceInfo("", 0, items, messages_, talks, size, 0, created, updated, defaults, unindexed, bare)
    found = sql(f"SELECT {_INFO} FROM {_INFO_FROM} WHERE n.name = ?", (now, name)).get
    return NamespaceInfo(name, policy=defaults) if found is None else _info(found, now, defaults)


def namespaces(sql: Sql, now: int, op: Namespaces) -> NamespacePage:
    """A page of namespaces."""
    condition, bindings = scope(op.namespace, subtree=op.subtree)
    after = "" if op.cursor is None else cursors.sort_key(op.cursor, str)[0]
    defaults = read_policy(sql("SELECT policy FROM store").get).over(DEFAULTS)
    rows = sql(
        f"SELECT {_INFO} FROM {_INFO_FROM} WHERE {condition} AND n.name > ? ORDER BY n.name LIMIT ?",
        (now, *bindings, after, op.limit + 1),
    ).fetchall()
    found = [_info(row, now, defaults) for row in rows[: op.limit]]
    return NamespacePage(found, cursors.page(found[-1].name) if len(rows) > op.limit and found else None)


READS: dict[type[Op], Callable[[Sql, int, Any], Any]] = {
    Value: value,
    Get: get,
    Scan: scan,
    History: history,
    Messages: messages,
    Conversations: conversations,
    Changes: changes,
    Describe: lambda sql, now, op: describe(sql, now, op.namespace),
    Namespaces: namespaces,
}
