"""Ops on their way down, and results on their way up: one function each, in the tables at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from botwire import cursors
from botwire.errors import StoreCorrupt
from botwire.ops import (
    Append,
    Change,
    ChangePage,
    Changes,
    Clear,
    Configure,
    Conversations,
    Delete,
    Describe,
    Dump,
    DumpPage,
    Edit,
    Erase,
    Get,
    History,
    Item,
    ItemPage,
    Load,
    MessagePage,
    Messages,
    Namespaces,
    Op,
    Put,
    Revision,
    Scan,
    Touch,
    Trim,
    Value,
)
from botwire.where import check_where, matches

from .sealer import Draws, Ids, Sealer, unindexed

FILTERED_AT_ONCE = 100  # items that are fetched to find some among them
NULL = Raw(b"null")


# ── ops ─────────────────────────────────────────────────────────────────────────────────────────────


def _as_it_is(sealer: Sealer, op: Op, draws: Draws, ids: Ids) -> Op:
    return op


def _with_key(sealer: Sealer, op: Any, draws: Draws, ids: Ids) -> Any:
    return replace(op, key=sealer.hide("key", op.namespace, op.key)) if sealer.hide_keys else op


def _put(sealer: Sealer, op: Put, draws: Draws, ids: Ids) -> Put:
    raw = sealer.seal_value(op.namespace, op.key, op.raw, draws)
    return replace(op, key=sealer.hide("key", op.namespace, op.key), raw=raw, meta=unindexed(op.meta))


def _scan(sealer: Sealer, op: Scan, draws: Draws, ids: Ids) -> Scan:
    if op.where is not None:
        check_where(op.where)
    if not filters_here(sealer, op):
        return op if op.where is None else replace(op, where=None)
    return replace(
        op,
        prefix="" if sealer.hide_keys else op.prefix,
        where=None,
        values=op.values or bool(op.where),
        limit=max(op.limit, FILTERED_AT_ONCE),
    )


def _append(sealer: Sealer, op: Append, draws: Draws, ids: Ids) -> Append:
    messages = [sealer.seal_message(op.namespace, op.conversation, new, draws) for new in op.messages]
    return replace(op, conversation=sealer.hide("conversation", op.namespace, op.conversation), messages=messages)


def _edit(sealer: Sealer, op: Edit, draws: Draws, ids: Ids) -> Edit:
    stored = sealer.stored_id(op.namespace, op.conversation, op.id, ids)
    raw = sealer.seal_edited(op.namespace, op.conversation, op.id, stored, op.role, op.raw, draws)
    return replace(op, conversation=sealer.hide("conversation", op.namespace, op.conversation), id=stored, raw=raw)


def _with_ids(sealer: Sealer, op: Messages | Trim, draws: Draws, ids: Ids) -> Messages | Trim:
    wanted = op.ids
    if wanted is not None:
        wanted = tuple(sealer.stored_id(op.namespace, op.conversation, each, ids) for each in wanted)
    return replace(op, conversation=sealer.hide("conversation", op.namespace, op.conversation), ids=wanted)


def _clear(sealer: Sealer, op: Clear | Erase, draws: Draws, ids: Ids) -> Clear | Erase:
    if op.conversation is not None:
        op = replace(op, conversation=sealer.hide("conversation", op.namespace, op.conversation))
    if isinstance(op, Erase) and op.key is not None:
        op = replace(op, key=sealer.hide("key", op.namespace, op.key))
    return op


def _dump(sealer: Sealer, op: Dump, draws: Draws, ids: Ids) -> Dump:
    return replace(op, stored=False) if op.stored else op


def _load(sealer: Sealer, op: Load, draws: Draws, ids: Ids) -> Load:
    origin = op.origin
    records = op.records if origin is None else [sealer.open_exported(origin, record) for record in op.records]
    return replace(op, records=[sealer.seal_record(op.namespace, each, draws) for each in records], origin=None)


SENT: dict[type[Op], Callable[[Sealer, Any, Draws, Ids], Op]] = {
    Value: _with_key,
    Get: _with_key,
    Scan: _scan,  # with hidden keys, those in the order of their keys go through `listings`
    History: _with_key,
    Messages: _with_ids,
    Conversations: _as_it_is,  # with hidden keys they go through `listings`
    Changes: _as_it_is,
    Describe: _as_it_is,
    Namespaces: _as_it_is,
    Dump: _dump,
    Put: _put,
    Delete: _with_key,
    Touch: _with_key,
    Append: _append,
    Edit: _edit,
    Trim: _with_ids,
    Clear: _clear,
    Erase: _clear,
    Configure: _as_it_is,
    Load: _load,
}


def why_refused(op: Op) -> str:
    """Why an op that is not in the table goes no further."""
    if type(op).__name__ == "Search":
        return "an encrypted memory cannot be searched: the store sees only ciphertext. List items with where= instead"
    return f"{type(op).__name__} is no op of an encrypted store: it is not known what in it has to be encrypted"


# ── results ─────────────────────────────────────────────────────────────────────────────────────────


def _open_value(sealer: Sealer, op: Value, result: Raw) -> Raw:
    return sealer.open_value(op.namespace, op.key, result)


def _open_item(sealer: Sealer, op: Get, result: Item) -> Item:
    return replace(result, raw=sealer.open_value(op.namespace, op.key, result.raw), key=op.key)


def _open_items(sealer: Sealer, op: Scan, result: ItemPage) -> ItemPage:
    filtered = filters_here(sealer, op)
    valued = op.values or bool(op.where)
    found: list[Item] = []
    after = op.cursor
    for row in result.items:
        if len(found) == op.limit:
            return ItemPage(found, after)
        item = sealer.open_item(row, valued=valued)
        after = item_cursor(row) if op.order == "key" else cursors.page(row.updated, row.namespace, row.key)
        if not filtered or passes(item, op):
            found.append(item if op.values else replace(item, raw=NULL))
    return ItemPage(found, result.cursor)


def _open_history(sealer: Sealer, op: History, result: list[Revision]) -> list[Revision]:
    return [sealer.open_revision(op.namespace, op.key, revision) for revision in result]


def _open_messages(sealer: Sealer, op: Messages, result: MessagePage) -> MessagePage:
    if len({message.id for message in result.messages}) < len(result.messages):
        raise StoreCorrupt(f"conversation {op.conversation!r} in {op.namespace!r} holds one message twice")
    opened = [sealer.open_message(op.namespace, op.conversation, message) for message in result.messages]
    return MessagePage(opened, result.more)


def _open_changes(sealer: Sealer, op: Changes, result: ChangePage) -> ChangePage:
    if not sealer.hide_keys:
        return result
    return replace(result, changes=[_open_change(sealer, change) for change in result.changes])


def _open_change(sealer: Sealer, change: Change) -> Change:
    key, conversation = change.key, change.conversation
    return replace(
        change,
        key=None if key is None else sealer.show("key", change.namespace, key),
        conversation=None if conversation is None else sealer.show("conversation", change.namespace, conversation),
    )


def _open_dump(sealer: Sealer, op: Dump, result: DumpPage) -> DumpPage:
    if op.stored:
        return result
    return replace(result, records=[sealer.open_record(op.namespace, record) for record in result.records])


OPENED: dict[type[Op], Callable[[Sealer, Any, Any], Any]] = {
    Value: _open_value,
    Get: _open_item,
    Scan: _open_items,
    History: _open_history,
    Messages: _open_messages,
    Changes: _open_changes,
    Dump: _open_dump,
}
"""The results that hold something encrypted. The others are numbers and times."""


# ── filters ─────────────────────────────────────────────────────────────────────────────────────────


def filters_here(sealer: Sealer, op: Scan) -> bool:
    """Whether a listing is filtered by what the store below cannot read."""
    return bool(op.where or (op.prefix and sealer.hide_keys))


def passes(item: Item, op: Scan) -> bool:
    """Whether a listing lets an item through."""
    if not item.key.startswith(op.prefix) or not set(op.tags) <= set(item.meta.tags):
        return False
    if (op.author is not None and item.meta.author != op.author) or (op.since is not None and item.updated < op.since):
        return False
    return not op.where or matches(item.value, op.where)


def item_cursor(row: Item) -> str:
    """The cursor of a listing by key behind an item."""
    return cursors.page(row.namespace, row.key)
