"""What the writing ops do, each as a function of a transaction.

A function checks everything before it changes anything: an op that stands alone needs no savepoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import json

from botwire import revisions
from botwire.errors import Conflict, InvalidInput, TooLarge
from botwire.ops import (
    END_OF_TIME,
    MICROSECONDS,
    NO_META,
    Append,
    Clear,
    Configure,
    Delete,
    Edit,
    NamespaceInfo,
    NewMessage,
    Op,
    Policy,
    Put,
    Removed,
    Stamp,
    Touch,
    Trim,
)
from botwire.revisions import Pushed

from . import index
from . import ledger as kinds
from .ledger import Ledger, Namespace
from .reads import describe, message_id_place, place_range

SWEPT_PER_WRITE = 8  # expired items and old deletions that a write clears away
TRIMMED_PER_WRITE = 256  # change rows
TRIM_EVERY = 64  # versions

_ITEM = "SELECT version, value, created, updated, expires, meta, past, rowid FROM items WHERE namespace = ? AND key = ?"
_INSERT = "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = "UPDATE items SET version=?, value=?, created=?, updated=?, expires=?, meta=?, past=? WHERE rowid=?"

Row = tuple[int, bytes | None, int, int, int | None, bytes | None, bytes | None, int]


class Transaction:
    """What a write works with: the connection, the namespace rows, and the time."""

    __slots__ = ("ledger", "now", "sql")

    def __init__(self, sql: Callable[..., Any], ledger: Ledger) -> None:
        self.sql = sql
        self.ledger = ledger
        self.now = ledger.now

    def open(self, name: str) -> Namespace:
        """The namespace, ready to be written to, after a little sweeping."""
        row = self.ledger.open(name)
        if row.sweep_at and row.sweep_at <= self.now:
            sweep(self, row)
        if row.version % TRIM_EVERY == 0 and row.version > row.feed_floor:
            trim_feed(self, row)
        return row

    def start_conversation(self, namespace: Namespace, name: str) -> int:
        """A new, empty conversation; its id."""
        self.ledger.store(namespace)
        namespace.conversations += 1
        new: int = self.sql(
            "INSERT INTO conversations (id, namespace, name, messages, bytes, version, created, updated, oldest) "
            "VALUES (max((SELECT conversations FROM store), coalesce((SELECT max(id) FROM conversations), 0)) + 1, "
            "?, ?, 0, 0, 0, 0, 0, ?) RETURNING id",
            (namespace.id, name, END_OF_TIME),
        ).get
        return new


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


def put(txn: Transaction, op: Put) -> Stamp:
    """Set a value."""
    namespace = txn.open(op.namespace)
    value = bytes(op.raw)
    if len(value) > (namespace.policy.max_value_bytes or 0):
        _check_size(value, namespace.policy)
    row: Row | None = txn.sql(_ITEM, (namespace.id, op.key)).get
    live = row is not None and row[1] is not None
    if row is not None and live and row[4] is not None and row[4] <= txn.now:
        row, live = expire(txn, namespace, op.key, row), False
    if op.if_version is not None:
        _compare(op.namespace, op.key, op.if_version, row[0] if row is not None and live else 0)
    expires = op.expires if op.ttl is None else txn.now + round(op.ttl * MICROSECONDS)
    meta = None if op.meta is NO_META else revisions.write_meta(op.meta)
    if row is None:
        return _insert(txn, namespace, op, value, expires, meta)
    pushed, growth, _ = _push(txn, namespace, row, keep=op.history)
    growth += _size(value, meta) - _size(row[1], row[5])
    txn.ledger.admit(namespace, 1, 0 if live else 1, growth)
    if not op.history:
        blank(txn, namespace, index.document_of_key(txn.sql, namespace.id, op.key))
    version, updated = txn.ledger.take(namespace, kinds.SET, op.key)
    created = row[2] if live else updated
    txn.sql(_UPDATE, (version, value, created, updated, expires, meta, pushed.packed, row[7]))
    if pushed.moved or pushed.dropped:
        _store_pages(txn, namespace, op.key, pushed)
    namespace.bytes += growth
    namespace.items += not live
    if expires is not None:
        namespace.due(expires)
    return Stamp(version, created, updated, expires)


def _insert(
    txn: Transaction, namespace: Namespace, op: Put, value: bytes, expires: int | None, meta: bytes | None
) -> Stamp:
    size = len(op.key.encode()) + _size(value, meta)
    txn.ledger.admit(namespace, items=1, size=size)
    version, updated = txn.ledger.take(namespace, kinds.SET, op.key)
    txn.sql(_INSERT, (namespace.id, op.key, version, value, updated, updated, expires, meta, None))
    namespace.items += 1
    namespace.bytes += size
    if expires is not None:
        namespace.due(expires)
    return Stamp(version, updated, updated, expires)


def delete(txn: Transaction, op: Delete) -> Stamp | None:
    """Delete a key; its past stays, unless history is off."""
    found = _live(txn, op.namespace, op.key, op.if_version)
    if found is None:
        return None
    namespace, row = found
    txn.ledger.admit(namespace)
    if not op.history:
        blank(txn, namespace, index.document_of_key(txn.sql, namespace.id, op.key))
    version, updated = _bury(txn, namespace, op.key, row, kinds.DELETED, keep=op.history)
    return Stamp(version, row[2], updated)


def touch(txn: Transaction, op: Touch) -> Stamp | None:
    """Set when a key expires."""
    found = _live(txn, op.namespace, op.key, op.if_version)
    if found is None:
        return None
    namespace, row = found
    expires = None if op.ttl is None else txn.now + round(op.ttl * MICROSECONDS)
    if expires == row[4]:
        return Stamp(row[0], row[2], row[3], expires)
    past = revisions.unpack(row[6])
    past.since = past.since or row[0]
    packed = revisions.pack(past)
    txn.ledger.admit(namespace)
    version, _ = txn.ledger.take(namespace, kinds.TOUCHED, op.key)
    txn.sql(_UPDATE, (version, row[1], row[2], row[3], expires, row[5], packed, row[7]))
    namespace.bytes += len(packed or b"") - len(row[6] or b"")
    if expires is not None:
        namespace.due(expires)
    return Stamp(version, row[2], row[3], expires)


def _live(txn: Transaction, name: str, key: str, if_version: int | None) -> tuple[Namespace, Row] | None:
    """The namespace and row of a key that has a value, after compare-and-set; `None`: there is nothing to change."""
    row: Row | None = None
    if txn.ledger.find(name) is not None:
        namespace = txn.open(name)
        row = txn.sql(_ITEM, (namespace.id, key)).get
        if row is not None and row[1] is not None and row[4] is not None and row[4] <= txn.now:
            row = expire(txn, namespace, key, row)
        if row is not None and row[1] is not None:
            if if_version is not None:
                _compare(name, key, if_version, row[0])
            return namespace, row
    if if_version:
        _compare(name, key, if_version, 0)
    return None


def expire(txn: Transaction, namespace: Namespace, key: str, row: Row) -> Row | None:
    """An item past its time becomes a deletion, which takes a version. Returns what is left of its row."""
    _bury(txn, namespace, key, row, kinds.EXPIRED, keep=True)
    left: Row | None = txn.sql(_ITEM, (namespace.id, key)).get
    return left


def _bury(txn: Transaction, namespace: Namespace, key: str, row: Row, kind: int, *, keep: bool) -> tuple[int, int]:
    """Take the value away under a version of its own."""
    version, updated = txn.ledger.take(namespace, kind, key)
    bury_at(txn, namespace, key, row, version, updated, keep=keep)
    return version, updated


def bury_at(
    txn: Transaction, namespace: Namespace, key: str, row: Row, version: int, updated: int, *, keep: bool
) -> None:
    """Take the value away: the row stays for its past, or goes if there is none to keep."""
    pushed, growth, nothing_left = _push(txn, namespace, row, keep=keep)
    namespace.items -= 1
    namespace.bytes += growth - _size(row[1], row[5])
    if pushed.moved or pushed.dropped:
        _store_pages(txn, namespace, key, pushed)
    if nothing_left:
        txn.sql("DELETE FROM items WHERE rowid = ?", (row[7],))
        namespace.bytes -= len(key.encode()) + len(pushed.packed or b"")
        namespace.forget(version, updated)
        return
    txn.sql(_UPDATE, (version, None, row[2], updated, None, None, pushed.packed, row[7]))
    namespace.due(updated + round((namespace.policy.max_age or 0) * MICROSECONDS))


def _push(txn: Transaction, namespace: Namespace, row: Row, *, keep: bool) -> tuple[Pushed, int, bool]:
    """What a row's past becomes when the row changes, by how many bytes it grows, and whether nothing is left of it."""
    past = revisions.unpack(row[6])
    was = (row[0], row[3], row[4], row[5], row[1])
    pushed = revisions.push(past, was, txn.now, namespace.policy, keep=keep)
    growth = len(pushed.packed or b"") - len(row[6] or b"")
    if pushed.moved is not None:
        growth += len(pushed.moved[1])
    for page in pushed.dropped:
        growth -= page.size
    return pushed, growth, not past.revisions and not past.pages


def _store_pages(txn: Transaction, namespace: Namespace, key: str, pushed: Pushed) -> None:
    if pushed.moved is not None:
        txn.sql("INSERT INTO revisions VALUES (?, ?, ?, ?)", (namespace.id, key, *pushed.moved))
    for page in pushed.dropped:
        txn.sql(
            "DELETE FROM revisions WHERE namespace = ? AND key = ? AND version = ?", (namespace.id, key, page.version)
        )


def _compare(namespace: str, key: str, wanted: int, current: int) -> None:
    if wanted != current:
        state = f"is at version {current}" if current else "does not exist"
        raise Conflict(f"{key!r} in {namespace!r} {state}, not at {wanted}: read it again and decide anew", current)


def _size(value: bytes | None, meta: bytes | None) -> int:
    return len(value or b"") + len(meta or b"")


def _check_size(value: bytes, policy: Policy) -> None:
    limit = policy.max_value_bytes or 0
    if len(value) > limit:
        raise TooLarge(
            f"the value takes {len(value):,} bytes as JSON: the limit is {limit:,}; split it, or raise max_value_bytes"
        )


# ── sweeping ────────────────────────────────────────────────────────────────────────────────────────


def sweep(txn: Transaction, namespace: Namespace) -> None:
    """Clear away a few expired items and a few deletions whose past is over its age."""
    expired = txn.sql(
        "SELECT key FROM items WHERE namespace = ? AND expires <= ? ORDER BY expires LIMIT ?",
        (namespace.id, txn.now, SWEPT_PER_WRITE),
    ).fetchall()
    for (key,) in expired:
        expire(txn, namespace, key, txn.sql(_ITEM, (namespace.id, key)).get)
    max_age = round((namespace.policy.max_age or 0) * MICROSECONDS)
    old = txn.sql(
        "SELECT key, version, updated, past FROM items WHERE namespace = ? AND value IS NULL AND updated < ? "
        "ORDER BY updated LIMIT ?",
        (namespace.id, txn.now - max_age, SWEPT_PER_WRITE),
    ).fetchall()
    for key, version, updated, packed in old:
        txn.sql("DELETE FROM items WHERE namespace = ? AND key = ?", (namespace.id, key))
        pages = txn.sql(
            "DELETE FROM revisions WHERE namespace = ? AND key = ? RETURNING length(page)", (namespace.id, key)
        ).fetchall()
        namespace.bytes -= len(key.encode()) + len(packed or b"") + sum(size for (size,) in pages)
        namespace.forget(version, updated)
    sweep_messages(txn, namespace)
    next_expiry, next_deletion = txn.sql(
        "SELECT (SELECT min(expires) FROM items WHERE namespace = ?1 AND expires IS NOT NULL), "
        "(SELECT min(updated) FROM items WHERE namespace = ?1 AND value IS NULL)",
        (namespace.id,),
    ).get
    namespace.sweep_at = 0
    note_oldest_message(txn, namespace)
    if next_expiry is not None:
        namespace.due(next_expiry)
    if next_deletion is not None:
        namespace.due(next_deletion + max_age + 1)
    txn.ledger.mark_dirty(namespace)


def sweep_messages(txn: Transaction, namespace: Namespace) -> None:
    """Remove the messages over their age from a few conversations, those with the oldest ones first."""
    if not namespace.policy.messages_max_age:
        return
    horizon = txn.now - round(namespace.policy.messages_max_age * MICROSECONDS)
    found = txn.sql(
        "SELECT id FROM conversations WHERE namespace = ? AND oldest < ? ORDER BY oldest LIMIT ?",
        (namespace.id, horizon, SWEPT_PER_WRITE),
    ).fetchall()
    for (conversation,) in found:
        low, high = place_range(conversation)
        _drop_messages(txn, namespace, conversation, "place BETWEEN ? AND ? AND created < ?", (low, high, horizon))
        txn.sql(
            "UPDATE conversations SET oldest = "
            "coalesce((SELECT min(created) FROM messages WHERE place BETWEEN ? AND ?), ?) WHERE id = ?",
            (low, high, END_OF_TIME, conversation),
        )


def note_oldest_message(txn: Transaction, namespace: Namespace) -> None:
    """Have the namespace swept when its oldest message is over its age."""
    if namespace.policy.messages_max_age:
        oldest = txn.sql("SELECT min(oldest) FROM conversations WHERE namespace = ?", (namespace.id,)).get
        if oldest is not None and oldest < END_OF_TIME:
            namespace.due(oldest + round(namespace.policy.messages_max_age * MICROSECONDS) + 1)


def trim_feed(txn: Transaction, namespace: Namespace) -> None:
    """Let go of a few changes that are over the feed's length or age."""
    policy = namespace.policy
    too_many = namespace.version - (policy.feed or 0)
    too_old = txn.now - round((policy.feed_max_age or 0) * MICROSECONDS)
    oldest = txn.sql(
        "SELECT f.version, c.updated, f.sequence FROM changes_of_namespace f JOIN changes c ON c.sequence = f.sequence "
        "WHERE f.namespace = ? ORDER BY f.version LIMIT ?",
        (namespace.id, TRIMMED_PER_WRITE),
    ).fetchall()
    gone = [(version, sequence) for version, updated, sequence in oldest if version <= too_many or updated < too_old]
    if not gone:
        return
    version, sequence = gone[-1]
    index.keep_pending(txn.sql, namespace.id, version)
    drop_changes(txn, namespace, version)
    if sequence >= txn.ledger.sequence:
        txn.sql("UPDATE store SET sequence = max(sequence, ?)", (sequence,))
    namespace.feed_floor, namespace.feed_trimmed = version, sequence
    txn.ledger.trimmed = max(txn.ledger.trimmed, sequence)
    txn.ledger.mark_dirty(namespace)


def drop_changes(txn: Transaction, namespace: Namespace, version: int) -> None:
    """Delete what the index knows of the namespace's changes up to a version."""
    of_namespace = "FROM changes_of_namespace WHERE namespace = ? AND version <= ?"
    txn.sql(f"DELETE FROM changes WHERE sequence IN (SELECT sequence {of_namespace})", (namespace.id, version))
    txn.sql(f"DELETE {of_namespace}", (namespace.id, version))


# ── conversations ───────────────────────────────────────────────────────────────────────────────────


def append(txn: Transaction, op: Append) -> list[Stamp]:
    """Append messages. Those whose id is there already answer with the version they have."""
    if not op.messages:
        return []
    namespace = txn.open(op.namespace)
    for message in op.messages:
        _check_size(bytes(message.raw), namespace.policy)
    row = txn.sql(
        "SELECT id, version, created, oldest FROM conversations WHERE namespace = ? AND name = ?",
        (namespace.id, op.conversation),
    ).get
    conversation, last, created, oldest = row or (0, 0, 0, END_OF_TIME)
    if op.if_version is not None and op.if_version != last:
        raise Conflict(
            f"conversation {op.conversation!r} in {op.namespace!r} is at version {last}, not {op.if_version}", last
        )
    known = _known_messages(txn, conversation, op)
    fresh = _fresh(op.messages, known)
    if not fresh:
        return [known[str(message.id)] for message in op.messages]
    size = sum(_message_size(message) for message in fresh)
    txn.ledger.admit(namespace, writes=len(fresh), size=size)
    if not row:
        conversation = txn.start_conversation(namespace, op.conversation)
    stamps = [_append_one(txn, namespace, conversation, op.conversation, message) for message in fresh]
    txn.sql(
        "UPDATE conversations SET messages = messages + ?, bytes = bytes + ?, version = ?, created = ?, updated = ? "
        "WHERE id = ?",
        (len(fresh), size, stamps[-1].version, created or stamps[0].updated, stamps[-1].updated, conversation),
    )
    if (said := min(stamp.created for stamp in stamps)) < oldest:
        txn.sql("UPDATE conversations SET oldest = ? WHERE id = ?", (said, conversation))
    namespace.messages += len(fresh)
    namespace.bytes += size
    if namespace.policy.messages or namespace.policy.messages_max_age:
        _retain(txn, namespace, conversation)
        note_oldest_message(txn, namespace)
    if len(fresh) == len(op.messages):
        return stamps
    known.update(
        {str(message.id): stamp for message, stamp in zip(fresh, stamps, strict=True) if message.id is not None}
    )
    unnamed = iter([stamp for message, stamp in zip(fresh, stamps, strict=True) if message.id is None])
    return [next(unnamed) if message.id is None else known[message.id] for message in op.messages]


def _known_messages(txn: Transaction, conversation: int, op: Append) -> dict[str, Stamp]:
    known: dict[str, Stamp] = {}
    for message in op.messages:
        if message.id is None or not conversation:
            continue
        row = txn.sql(
            "SELECT place & 4294967295, created, value, edited FROM messages WHERE place >> 32 = ? AND id = ?",
            (conversation, message.id),
        ).get
        if row is None:
            continue
        version, created, value, edited = row
        if value != bytes(message.raw) and edited is None:
            raise Conflict(
                f"message {message.id!r} is in conversation {op.conversation!r} already, with another value: "
                "use `edit` to change it, or another id",
                version,
            )
        known[message.id] = Stamp(version, created, created)
    return known


def _fresh(messages: list[NewMessage], known: dict[str, Stamp]) -> list[NewMessage]:
    fresh: list[NewMessage] = []
    by_id: dict[str, bytes] = {}
    for message in messages:
        if message.id is None:
            fresh.append(message)
        elif message.id in by_id:
            if by_id[message.id] != bytes(message.raw):
                raise InvalidInput(f"message id {message.id!r} occurs twice in one append, with different values")
        elif message.id not in known:
            by_id[message.id] = bytes(message.raw)
            fresh.append(message)
    return fresh


def _append_one(txn: Transaction, namespace: Namespace, conversation: int, name: str, message: NewMessage) -> Stamp:
    version, updated = txn.ledger.take(namespace, kinds.APPENDED, name)
    said = updated if message.at is None else message.at
    txn.sql(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, NULL, 0, ?, ?)",
        (
            conversation << 32 | version,
            message.id,
            said,
            message.role,
            message.author,
            bytes(message.raw),
            not message.index,
        ),
    )
    return Stamp(version, said, updated)


def _message_size(message: NewMessage) -> int:
    return len(bytes(message.raw)) + sum(
        len(name.encode()) for name in (message.id, message.role, message.author) if name
    )


MESSAGE_SIZE = (
    "length(value) + coalesce(length(CAST(id AS BLOB)), 0) + coalesce(length(CAST(role AS BLOB)), 0) "
    "+ coalesce(length(CAST(author AS BLOB)), 0)"
)


def _retain(txn: Transaction, namespace: Namespace, conversation: int) -> None:
    """Let go of messages over the policy's number or age."""
    policy = namespace.policy
    low, high = place_range(conversation)
    if policy.messages:
        count = txn.sql("SELECT messages FROM conversations WHERE id = ?", (conversation,)).get
        if count > policy.messages:
            oldest = "place BETWEEN ? AND ? ORDER BY place LIMIT ?"
            _drop_messages(txn, namespace, conversation, oldest, (low, high, count - policy.messages))
    if policy.messages_max_age:
        since = txn.now - round(policy.messages_max_age * MICROSECONDS)
        _drop_messages(txn, namespace, conversation, "place BETWEEN ? AND ? AND created < ?", (low, high, since))


def _drop_messages(
    txn: Transaction, namespace: Namespace, conversation: int, which: str, bindings: tuple[Any, ...]
) -> int:
    gone = txn.sql(
        f"DELETE FROM messages WHERE place IN (SELECT place FROM messages WHERE {which}) RETURNING {MESSAGE_SIZE}",
        bindings,
    ).fetchall()
    size = sum(each for (each,) in gone)
    low, high = place_range(conversation)
    txn.sql(
        "UPDATE conversations SET messages = messages - ?, bytes = bytes - ?, version = "
        "coalesce((SELECT max(place) FROM messages WHERE place BETWEEN ? AND ?), 0) & 4294967295 WHERE id = ?",
        (len(gone), size, low, high, conversation),
    )
    namespace.messages -= len(gone)
    namespace.bytes -= size
    txn.ledger.mark_dirty(namespace)
    return len(gone)


def find_conversation(txn: Transaction, namespace: Namespace, name: str) -> int | None:
    """The id of a conversation."""
    found: int | None = txn.sql(
        "SELECT id FROM conversations WHERE namespace = ? AND name = ?", (namespace.id, name)
    ).get
    return found


def edit(txn: Transaction, op: Edit) -> Stamp | None:
    """Replace one message where it stands."""
    if txn.ledger.find(op.namespace) is None:
        return None
    namespace = txn.open(op.namespace)
    _check_size(bytes(op.raw), namespace.policy)
    conversation = find_conversation(txn, namespace, op.conversation)
    place = None if conversation is None else message_id_place(txn.sql, conversation, op.id)
    if place is None:
        return None
    select = f"SELECT {MESSAGE_SIZE}, created, value FROM messages WHERE place = ?"
    before, created, value = txn.sql(select, (place,)).get
    if op.if_text is not None and op.if_text.encode() != value:
        raise Conflict(
            f"message {op.id!r} in conversation {op.conversation!r} has changed: read it again and decide anew",
            place & 4294967295,
        )
    given = None if op.id.startswith("#") else op.id
    growth = _message_size(NewMessage(op.raw, given, op.role, op.author)) - before
    txn.ledger.admit(namespace, size=growth)
    blank(txn, namespace, index.document_of_place(txn.sql, place))
    version, updated = txn.ledger.take(namespace, kinds.EDITED, op.conversation)
    txn.sql(
        "UPDATE messages SET value = ?, role = ?, author = ?, edited = ?, redacted = ? WHERE place = ?",
        (bytes(op.raw), op.role, op.author, updated, int(op.redacted), place),
    )
    txn.sql("UPDATE conversations SET bytes = bytes + ?, updated = ? WHERE id = ?", (growth, updated, conversation))
    namespace.bytes += growth
    return Stamp(version, created, updated)


def blank(txn: Transaction, namespace: Namespace, document: int | None) -> None:
    """What is taken back by name leaves the search index at once; everything else does when search takes it in."""
    if document is not None:
        index.blank(txn.sql, namespace.id, document)


def trim(txn: Transaction, op: Trim) -> Removed:
    """Remove messages."""
    if txn.ledger.find(op.namespace) is None:
        return Removed()
    namespace = txn.open(op.namespace)
    conversation = find_conversation(txn, namespace, op.conversation)
    if conversation is None:
        return Removed()
    which, bindings = _which_messages(txn, conversation, op)
    if not txn.sql(f"SELECT EXISTS (SELECT 1 FROM messages WHERE {which})", bindings).get:
        return Removed()
    txn.ledger.admit(namespace)
    if op.ids is not None:
        for (place,) in txn.sql(f"SELECT place FROM messages WHERE {which}", bindings).fetchall():
            blank(txn, namespace, index.document_of_place(txn.sql, place))
    version, _ = txn.ledger.take(namespace, kinds.TRIMMED, op.conversation)
    return Removed(version, 0, _drop_messages(txn, namespace, conversation, which, bindings))


def _which_messages(txn: Transaction, conversation: int, op: Trim) -> tuple[str, tuple[Any, ...]]:
    low, high = place_range(conversation)
    if op.ids is not None:
        places = [message_id_place(txn.sql, conversation, each) for each in op.ids]
        return "place IN (SELECT value FROM json_each(?))", (
            json.encode([place for place in places if place is not None]).decode(),
        )
    if op.older_than is not None:
        return "place BETWEEN ? AND ? AND created < ?", (low, high, op.older_than)
    count = txn.sql("SELECT messages FROM conversations WHERE id = ?", (conversation,)).get
    return "place BETWEEN ? AND ? ORDER BY place LIMIT ?", (low, high, max(0, count - (op.keep or 0)))


def drop_conversation(txn: Transaction, namespace: Namespace, conversation: int) -> int:
    """Delete a conversation whole."""
    low, high = place_range(conversation)
    count, size = txn.sql("SELECT messages, bytes FROM conversations WHERE id = ?", (conversation,)).get
    txn.sql("DELETE FROM messages WHERE place BETWEEN ? AND ?", (low, high))
    txn.sql("DELETE FROM conversations WHERE id = ?", (conversation,))
    txn.sql("UPDATE store SET conversations = max(conversations, ?)", (conversation,))
    namespace.messages -= count
    namespace.bytes -= size
    namespace.conversations -= 1
    txn.ledger.mark_dirty(namespace)
    return int(count)


# ── whole namespaces ────────────────────────────────────────────────────────────────────────────────


def clear(txn: Transaction, op: Clear) -> Removed:
    """Delete everything, or one conversation, under one version."""
    if txn.ledger.find(op.namespace) is None:
        return Removed()
    namespace = txn.open(op.namespace)
    if op.conversation is not None:
        conversation = find_conversation(txn, namespace, op.conversation)
        if conversation is None:
            return Removed()
        txn.ledger.admit(namespace)
        version, _ = txn.ledger.take(namespace, kinds.CLEARED, op.conversation)
        return Removed(version, 0, drop_conversation(txn, namespace, conversation))
    if not namespace.items and not namespace.conversations:
        return Removed()
    txn.ledger.admit(namespace)
    version, updated = txn.ledger.take(namespace, kinds.CLEARED, None)
    items = _bury_all(txn, namespace, version, updated)
    found = txn.sql("SELECT id FROM conversations WHERE namespace = ?", (namespace.id,)).fetchall()
    return Removed(version, items, sum(drop_conversation(txn, namespace, each) for (each,) in found))


def _bury_all(txn: Transaction, namespace: Namespace, version: int, updated: int) -> int:
    count, after = 0, ""
    while True:
        rows = txn.sql(
            "SELECT key, version, value, created, updated, expires, meta, past, rowid FROM items "
            "WHERE namespace = ? AND key > ? AND value IS NOT NULL ORDER BY key LIMIT 500",
            (namespace.id, after),
        ).fetchall()
        if not rows:
            return count
        for key, *columns in rows:
            row: Row = tuple(columns)
            bury_at(txn, namespace, key, row, version, updated, keep=True)
        count += len(rows)
        after = rows[-1][0]


def configure(txn: Transaction, op: Configure) -> NamespaceInfo:
    """Set the policy of a namespace, or the store's."""
    if op.namespace == "":
        own = op.policy.over(kinds.read_policy(txn.sql("SELECT policy FROM store").get))
        txn.ledger.flush()
        txn.sql("UPDATE store SET policy = ?", (json.encode(own),))
        txn.ledger.forget_namespaces()
        if _changes_index(op.policy):
            for (each,) in txn.sql("SELECT namespace FROM search_namespaces").fetchall():
                index.drop(txn.sql, each)
        return describe(txn.sql, txn.now, "")
    namespace = txn.ledger.open(op.namespace)
    own = op.policy.over(namespace.own_policy)
    txn.ledger.store(namespace)
    txn.sql("UPDATE namespaces SET policy = ? WHERE id = ?", (json.encode(own), namespace.id))
    namespace.own_policy, namespace.policy = own, own.over(txn.ledger.defaults)
    if _changes_index(op.policy):
        index.drop(txn.sql, namespace.id)
    namespace.due(txn.now)
    txn.ledger.mark_dirty(namespace)
    txn.ledger.flush()
    return describe(txn.sql, txn.now, op.namespace)


def _changes_index(policy: Policy) -> bool:
    """Whether a policy changes what search finds of what is there already."""
    return policy.index is not None or policy.messages_max_age is not None


WRITES: dict[type[Op], Callable[[Transaction, Any], Any]] = {
    Put: put,
    Delete: delete,
    Touch: touch,
    Append: append,
    Edit: edit,
    Trim: trim,
    Clear: clear,
    Configure: configure,
}

__all__ = ["WRITES", "Transaction"]
