"""Dump, load and erase: what concerns everything that a namespace holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import json

from botwire import cursors, revisions
from botwire.errors import Conflict, InvalidInput
from botwire.names import ancestors, check_name, check_tags
from botwire.ops import (
    END_OF_TIME,
    MICROSECONDS,
    ConversationRecord,
    Dump,
    DumpPage,
    DumpRecord,
    Embed,
    Embedded,
    EndRecord,
    Erase,
    Erased,
    HitPage,
    Index,
    Indexed,
    ItemRecord,
    Load,
    Loaded,
    MessageRecord,
    NamespaceRecord,
    NewMessage,
    Op,
    Revision,
    Search,
    Texts,
    Unembedded,
    check_fields,
)
from botwire.revisions import Past
from botwire.values import check_text

from . import index
from .ledger import MAX_VERSION, Namespace, read_policy
from .reads import MESSAGE, READS, Sql, View, message_of, older_revisions, place_range, scope, view
from .writes import MESSAGE_SIZE, WRITES, Transaction, drop_changes, drop_conversation, find_conversation

# ── dump ────────────────────────────────────────────────────────────────────────────────────────────


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a dump goes on, and how much it has given out: the end record says what really came before it."""

    table: str
    name: str = ""
    version: int = 0
    items: int = 0
    messages: int = 0


def dump(sql: Sql, now: int, op: Dump) -> DumpPage:
    """Some records of a namespace."""
    namespace = view(sql, op.namespace)
    if namespace is None:
        return DumpPage([NamespaceRecord(0, 0, 0), EndRecord(0, 0, 0)])
    if op.cursor is None:
        return _dump_start(sql, op)
    place = _Place(*cursors.sort_key(op.cursor, str, str, int, int, int))
    step = _dump_items if place.table == "items" else _dump_messages
    return step(sql, now, op, namespace, place)


def _page(records: list[DumpRecord], place: _Place) -> DumpPage:
    return DumpPage(records, cursors.page(*msgspec.structs.astuple(place)))


def _dump_start(sql: Sql, op: Dump) -> DumpPage:
    version, created, updated, floor, floor_at, policy = sql(
        "SELECT version, created, updated, floor, floor_at, policy FROM namespaces WHERE name = ?", (op.namespace,)
    ).get
    start = NamespaceRecord(version, created, updated, (floor, floor_at), read_policy(policy))
    return _page([start], _Place("items"))


def _dump_items(sql: Sql, now: int, op: Dump, namespace: View, place: _Place) -> DumpPage:
    rows = sql(
        "SELECT key, created, past, version, updated, expires, meta, value FROM items "
        "WHERE namespace = ? AND key > ? ORDER BY key LIMIT ?",
        (namespace.id, place.name, op.limit),
    ).fetchall()
    records: list[DumpRecord] = []
    live = 0
    for key, created, packed, *current in rows:
        past = revisions.unpack(packed)
        older = older_revisions(sql, namespace.id, key, past)
        everything = [*past.revisions, *older]
        kept, complete = revisions.readable(tuple(current), everything, past.complete, now, namespace.policy)
        seen = revisions.history(kept, now)
        if len(seen) > 1 or not seen[0].deleted:
            records.append(ItemRecord(key, created, seen, complete and len(seen) == len(kept), past.since))
            live += not seen[0].deleted
    items = place.items + live
    if len(rows) < op.limit:
        return _page(records, _Place("messages", items=items))
    return _page(records, _Place("items", rows[-1][0], items=items))


def _dump_messages(sql: Sql, now: int, op: Dump, namespace: View, place: _Place) -> DumpPage:
    max_age = namespace.policy.messages_max_age
    oldest = now - round(max_age * MICROSECONDS) if max_age else 0
    records: list[DumpRecord] = []
    name, version, count = place.name, place.version, place.messages
    while (found := _next_conversation(sql, namespace.id, name, version)) is not None:
        conversation, name, *about = found
        if not version:
            records.append(ConversationRecord(name, *about))
        low, high = place_range(conversation, after=version)
        rows = sql(
            f"SELECT {MESSAGE} FROM messages WHERE place BETWEEN ? AND ? AND created >= ? ORDER BY place LIMIT ?",
            (low, high, oldest, op.limit),
        ).fetchall()
        records.extend(MessageRecord(message_of(row, name, "")) for row in rows)
        count += len(rows)
        if len(rows) == op.limit:
            return _page(records, _Place("messages", name, rows[-1][0], place.items, count))
        version = 0
        if len(records) >= op.limit:
            return _page(records, _Place("messages", name, 0, place.items, count))
    records.append(EndRecord(namespace.version, place.items, count))
    return DumpPage(records)


def _next_conversation(sql: Sql, namespace: int, name: str, version: int) -> Any:
    """The conversation in whose midst the dump stands, or the one behind it."""
    return sql(
        "SELECT id, name, version, created, updated FROM conversations WHERE namespace = ? AND name >= ? "
        "AND (name > ? OR ?) ORDER BY name LIMIT 1",
        (namespace, name, name, version > 0 or not name),
    ).get


# ── load ────────────────────────────────────────────────────────────────────────────────────────────


def load(txn: Transaction, op: Load) -> Loaded:
    """Take in records."""
    items = messages = 0
    for place, record in enumerate(op.records):
        if isinstance(record, NamespaceRecord):
            if place:
                raise InvalidInput("a namespace record stands in the midst of others: a load begins with it")
            _begin_load(txn, op.namespace, record)
            continue
        namespace = txn.ledger.find(op.namespace)
        if namespace is None or not namespace.loading:
            raise InvalidInput(f"no load into {op.namespace!r} is under way: begin with the namespace record")
        match record:
            case ItemRecord():
                _load_item(txn, namespace, record)
                items += 1
            case ConversationRecord():
                _load_conversation(txn, namespace, record)
            case MessageRecord():
                _load_message(txn, namespace, record)
                messages += 1
            case EndRecord():
                _end_load(txn, namespace, record)
    return Loaded(items, messages)


def _begin_load(txn: Transaction, name: str, record: NamespaceRecord) -> None:
    namespace = txn.ledger.open(name, loading=True)
    if namespace.loading:  # an earlier try was cut off
        _wipe(txn, namespace)
    held = txn.sql(
        "SELECT EXISTS (SELECT 1 FROM items WHERE namespace = ?1) "
        "OR EXISTS (SELECT 1 FROM conversations WHERE namespace = ?1)",
        (namespace.id,),
    ).get
    if held:
        raise Conflict(
            f"namespace {name!r} is not empty: import into an empty one, or erase it first", namespace.version
        )
    txn.ledger.store(namespace)
    index.drop(txn.sql, namespace.id)
    # Whoever watched the empty place must be told: its version moves on in any case.
    if record.version > namespace.version:
        namespace.version = _checked_version(record.version)
    elif namespace.version and not namespace.loading:
        namespace.version += 1
    namespace.created, namespace.updated = record.created, record.updated
    namespace.floor, namespace.floor_at = record.history_floor
    namespace.loading = 1
    namespace.own_policy = record.policy
    namespace.policy = record.policy.over(txn.ledger.defaults)
    txn.sql(
        "UPDATE namespaces SET created = ?, policy = ? WHERE id = ?",
        (record.created, json.encode(record.policy), namespace.id),
    )
    txn.ledger.mark_dirty(namespace)


def _load_item(txn: Transaction, namespace: Namespace, record: ItemRecord) -> None:
    check_name(record.key, "key")
    if not record.revisions:
        raise InvalidInput(f"the record of {record.key!r} has no revision")
    for revision in record.revisions:
        _check_revision(record.key, revision, namespace)
    current, *past = [revisions.packed(revision) for revision in record.revisions]
    whole = Past(past, record.complete, [], record.since)
    packed = revisions.pack(whole)
    moved = revisions.move_out(whole) if len(packed or b"") > revisions.PACKED_BYTES else None
    packed = revisions.pack(whole)
    version, updated, expires, meta, value = current
    txn.sql(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (namespace.id, record.key, version, value, record.created, updated, expires, meta, packed),
    )
    if moved is not None:
        txn.sql("INSERT INTO revisions VALUES (?, ?, ?, ?)", (namespace.id, record.key, *moved))
    namespace.items += value is not None
    texts = [record.key.encode(), value, meta, packed, moved[1] if moved else None]
    namespace.bytes += sum(len(text) for text in texts if text is not None)
    namespace.version = max(namespace.version, version)
    namespace.due(txn.now)
    txn.ledger.mark_dirty(namespace)


def _check_revision(key: str, revision: Revision, namespace: Namespace) -> None:
    _checked_version(revision.version)
    check_tags(revision.meta.tags)
    if revision.meta.author is not None:
        check_name(revision.meta.author, "author")
    check_fields(revision.meta.index)
    if not revision.deleted:
        check_text(revision.raw, namespace.policy.max_value_bytes or 0)
    if revision.updated < 0:
        raise InvalidInput(f"a revision of {key!r} has a time before 1970")


def _checked_version(version: int) -> int:
    if not 0 < version <= MAX_VERSION:
        raise InvalidInput(f"{version} is no version: they go from 1 to {MAX_VERSION:,}")
    return version


def _load_conversation(txn: Transaction, namespace: Namespace, record: ConversationRecord) -> None:
    check_name(record.name, "conversation")
    conversation = txn.start_conversation(namespace, record.name)
    txn.sql(
        "UPDATE conversations SET version = ?, created = ?, updated = ? WHERE id = ?",
        (record.version, record.created, record.updated, conversation),
    )


def _load_message(txn: Transaction, namespace: Namespace, record: MessageRecord) -> None:
    message = record.message
    conversation = find_conversation(txn, namespace, message.conversation)
    if conversation is None:
        raise InvalidInput(f"message {message.id!r} comes before its conversation {message.conversation!r}")
    _checked_version(message.version)
    check_text(message.raw, namespace.policy.max_value_bytes or 0)
    given = None if message.id.startswith("#") else message.id
    NewMessage(message.raw, given, message.role, message.author, message.created)  # checks their names
    place = conversation << 32 | message.version
    txn.sql(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            place,
            given,
            message.created,
            message.role,
            message.author,
            message.edited,
            message.redacted,
            bytes(message.raw),
            not message.index,
        ),
    )
    size = txn.sql(f"SELECT {MESSAGE_SIZE} FROM messages WHERE place = ?", (place,)).get
    txn.sql("UPDATE conversations SET messages = messages + 1, bytes = bytes + ? WHERE id = ?", (size, conversation))
    namespace.messages += 1
    namespace.bytes += size
    namespace.version = max(namespace.version, message.version)
    txn.ledger.mark_dirty(namespace)


def _end_load(txn: Transaction, namespace: Namespace, record: EndRecord) -> None:
    if (namespace.items, namespace.messages) != (record.items, record.messages):
        raise InvalidInput(
            f"the copy is not whole: it should hold {record.items:,} items and {record.messages:,} messages, "
            f"and {namespace.items:,} and {namespace.messages:,} came"
        )
    txn.sql(
        "UPDATE conversations SET oldest = coalesce((SELECT min(created) FROM messages "
        "WHERE place BETWEEN conversations.id << 32 AND ((conversations.id + 1) << 32) - 1), ?) WHERE namespace = ?",
        (END_OF_TIME, namespace.id),
    )
    namespace.due(txn.now)
    namespace.version = max(namespace.version, record.version)
    namespace.feed_floor = namespace.version  # the feed does not travel: cursors of elsewhere mean nothing here
    namespace.feed_trimmed = txn.ledger.cut()
    namespace.loading = 0
    txn.ledger.mark_dirty(namespace)


# ── erase ───────────────────────────────────────────────────────────────────────────────────────────


def erase(txn: Transaction, op: Erase) -> Erased:
    """Destroy rows and their traces. The store overwrites what is left in the file afterwards."""
    if op.key is not None or op.conversation is not None:
        return _erase_part(txn, op)
    condition, bindings = scope(op.namespace, subtree=op.subtree)
    txn.ledger.flush()
    names = [name for (name,) in txn.sql(f"SELECT n.name FROM namespaces n WHERE {condition}", bindings).fetchall()]
    if not names:
        return Erased()
    items = messages = 0
    for name in names:
        row = txn.ledger.find(name)
        assert row is not None  # its name was read in this very transaction
        items, messages = items + row.items, messages + row.messages
        _erase_namespace(txn, row)
    _cut_feeds(txn, op)
    return Erased(items, messages, len(names))


def _erase_namespace(txn: Transaction, namespace: Namespace) -> None:
    _wipe(txn, namespace)
    txn.sql("DELETE FROM namespaces WHERE id = ?", (namespace.id,))
    txn.ledger.drop(namespace)


def _wipe(txn: Transaction, namespace: Namespace) -> None:
    """Delete all that the namespace holds."""
    index.drop(txn.sql, namespace.id)
    for (conversation,) in txn.sql("SELECT id FROM conversations WHERE namespace = ?", (namespace.id,)).fetchall():
        drop_conversation(txn, namespace, conversation)
    txn.ledger.index_feed()
    drop_changes(txn, namespace, namespace.version)
    for table in ("items", "revisions"):
        txn.sql(f"DELETE FROM {table} WHERE namespace = ?", (namespace.id,))
    namespace.items = namespace.messages = namespace.conversations = namespace.bytes = 0


def _cut_feeds(txn: Transaction, op: Erase) -> None:
    """Feeds over a subtree have lost entries: their readers must be told, without the erased name being kept."""
    place = txn.ledger.cut()
    above = ancestors(op.namespace)[1:]
    if not op.subtree:
        condition, bindings = scope(op.namespace, subtree=True)
        if txn.sql(f"SELECT EXISTS (SELECT 1 FROM namespaces n WHERE {condition})", bindings).get:
            above.append(op.namespace)  # namespaces below it say this name anyway
    else:
        condition, bindings = scope(op.namespace, subtree=True, column="scope")
        txn.sql(f"DELETE FROM feed_cuts WHERE {condition} AND scope != ''", bindings)
        if not op.namespace:
            above = [""]
    for each in above:
        txn.sql("INSERT INTO feed_cuts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sequence = ?2", (each, place))


def _erase_part(txn: Transaction, op: Erase) -> Erased:
    namespace = txn.ledger.find(op.namespace)
    if namespace is None:
        return Erased()
    if indexed := index.documents_of(txn.sql, namespace.id, op.key, op.conversation):
        from .indexing import take_out  # the ranking: not for those who never search

        take_out(txn.sql, namespace.id, indexed)
    items = messages = 0
    if op.key is not None:
        found = txn.sql(
            "DELETE FROM items WHERE namespace = ? AND key = ? RETURNING value IS NOT NULL, "
            "length(CAST(key AS BLOB)) + coalesce(length(value), 0) + coalesce(length(meta), 0) "
            "+ coalesce(length(past), 0)",
            (namespace.id, op.key),
        ).get
        if found is None:
            return Erased()
        pages = txn.sql(
            "DELETE FROM revisions WHERE namespace = ? AND key = ? RETURNING length(page)", (namespace.id, op.key)
        ).fetchall()
        items, size = found
        namespace.items -= items
        namespace.bytes -= size + sum(each for (each,) in pages)
    else:
        conversation = find_conversation(txn, namespace, str(op.conversation))
        if conversation is None:
            return Erased()
        messages = drop_conversation(txn, namespace, conversation)
    _forget_feed(txn, namespace, op)
    return Erased(items, messages)


def _forget_feed(txn: Transaction, namespace: Namespace, op: Erase) -> None:
    """The namespace's feed named what was erased: it begins anew, and so does what is remembered of deletions."""
    namespace.version += 1
    namespace.updated = max(txn.now, namespace.updated)
    namespace.forget(namespace.version, namespace.updated)
    txn.ledger.index_feed()
    index.keep_pending(txn.sql, namespace.id, namespace.version)
    index.erased(txn.sql, namespace.id, namespace.version, key=op.key, conversation=op.conversation)
    drop_changes(txn, namespace, namespace.version)
    namespace.feed_floor = namespace.version
    namespace.feed_trimmed = txn.ledger.cut()
    txn.ledger.mark_dirty(namespace)


class Flush:
    """A write like an op, but of this process alone: what searches have taken in goes into the file."""

    def __init__(self, write: Callable[[Sql, int], bool]) -> None:
        self.write = write


def _index(txn: Transaction, op: Index) -> Indexed:
    """Take in what search has not indexed yet."""
    from .finding import take_in  # the ranking: not for those who never search

    txn.ledger.flush()
    return take_in(txn.sql, txn.now, op)


def _flush(txn: Transaction, op: Flush) -> bool:
    """Write what a search has taken in; nothing that anybody else can ask for."""
    txn.ledger.flush()
    return op.write(txn.sql, txn.now)


def _embed(txn: Transaction, op: Embed) -> Embedded:
    """Store vectors."""
    from .finding import embed  # the ranking: not for those who never search

    txn.ledger.flush()
    return embed(txn.sql, txn.now, op)


def _search(sql: Sql, now: int, op: Search | Unembedded) -> HitPage | Texts:
    """Search in the midst of a write. A store that only reads has its own way, which remembers."""
    from .finding import search  # the ranking: not for those who never search

    return search(sql, now, op)


MOVES: dict[type[Any], Callable[[Transaction, Any], Any]] = {
    **WRITES, Load: load, Erase: erase, Index: _index, Embed: _embed, Flush: _flush,
}  # fmt: skip
ALL_READS: dict[type[Op], Callable[[Sql, int, Any], Any]] = {**READS, Dump: dump, Search: _search, Unembedded: _search}
