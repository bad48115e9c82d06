"""Listings by name when names are hidden: all of them are read, and sorted and filtered here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from botwire import cursors, flows
from botwire.errors import TooLarge
from botwire.ops import Changes, ConversationInfo, ConversationPage, Conversations, Get, Item, ItemPage, Scan
from botwire.where import check_where

from .calls import Call, Plan
from .sealer import Sealer
from .sending import NULL, item_cursor, passes

NAMES_AT_ONCE = 5_000
VALUES_AT_ONCE = 500
PAGE_BYTES = 16 * 1024 * 1024  # of values: a page ends before its limit when it holds so much
LOOKED_AT_PER_PAGE = 20_000  # items, before a filtered page answers with what it has

T = TypeVar("T")


class Shelf:
    """The listing that was read last, for its next pages: reading all names for each page would take for ever."""

    def __init__(self) -> None:
        self._kept: tuple[Any, str, list[Any]] | None = None

    def keep(self, op: Any, end: str, rows: list[Any]) -> None:
        """Keep what a listing has found. `end`: the cursor of the feed before it was read."""
        self._kept = (op, end, rows)

    def rows(self, op: Any, end: str) -> list[Any] | None:
        """What the listing would find, if nothing has changed since."""
        kept = self._kept
        return kept[2] if kept is not None and kept[:2] == (op, end) else None

    def clear(self) -> None:
        """Keep nothing."""
        self._kept = None


# ── items ───────────────────────────────────────────────────────────────────────────────────────────


def list_items(sealer: Sealer, shelf: Shelf, op: Scan) -> Plan[ItemPage]:
    """A page of items in the order of their keys."""
    if op.where is not None:
        check_where(op.where)
    if op.limit == 0:
        return ItemPage([], op.cursor)
    rows, fetched = yield from _all_items(sealer, shelf, op)
    rows = _page_of(rows, op, lambda row: (row.namespace, row.key), reverse=op.reverse)
    page = yield from _some_items(sealer, op, rows, fetched=fetched)
    if page.cursor is None:
        shelf.clear()
    return page


def _some_items(sealer: Sealer, op: Scan, rows: list[Item], *, fetched: bool) -> Plan[ItemPage]:
    """Those of the rows that make the page. `fetched`: they have their values."""
    found: list[Item] = []
    size = 0
    for start in range(0, len(rows), VALUES_AT_ONCE):
        some = rows[start : start + VALUES_AT_ONCE]
        items = yield from _with_values(sealer, op, some, fetched=fetched)
        for place, item in enumerate(items, start):
            if len(found) == op.limit or size >= PAGE_BYTES:
                return ItemPage(found, item_cursor(rows[place - 1]))
            if item is not None and passes(item, op):
                found.append(item if op.values else replace(item, raw=NULL))
                size += len(bytes(found[-1].raw))
        if start + len(some) >= LOOKED_AT_PER_PAGE:
            return ItemPage(found, item_cursor(some[-1]))
    return ItemPage(found)


def _with_values(sealer: Sealer, op: Scan, rows: Sequence[Item], *, fetched: bool) -> Plan[Sequence[Item | None]]:
    """The items as they are now, if the page needs their values; `None` for one that has gone meanwhile."""
    if not op.values and not op.where:
        return rows
    if not fetched:
        items = yield from _get([Get(row.namespace, sealer.hide("key", row.namespace, row.key)) for row in rows])
        return [None if item is None else sealer.open_item(item) for item in items]
    return [replace(row, raw=sealer.open_value(row.namespace, row.key, row.raw)) for row in rows]


def _get(ops: Sequence[Get]) -> Plan[list[Item | None]]:
    """Many gets: in one batch, or if the answers to it would be too large, in several."""
    try:
        return (yield Call(ops))
    except TooLarge:
        if len(ops) == 1:
            raise
    half = len(ops) // 2
    return (yield from _get(ops[:half])) + (yield from _get(ops[half:]))


def _all_items(sealer: Sealer, shelf: Shelf, op: Scan) -> Plan[tuple[list[Item], bool]]:
    """Every item that the listing may be about, and whether they come with their (encrypted) values."""
    sent = replace(op, prefix="", where=None, values=False, reverse=False, limit=NAMES_AT_ONCE, cursor=None)
    [now] = yield Call([Changes(op.namespace, None, op.subtree)])
    rows = shelf.rows(sent, now.cursor)
    # What has expired since must not be shown; values are fetched anew, and then it is not there.
    if rows is not None and (op.values or op.where or all(row.expires is None for row in rows)):
        return rows, False
    [few] = yield Call([replace(sent, values=op.values or bool(op.where), limit=VALUES_AT_ONCE)])
    if few.cursor is None:
        return [sealer.open_item(item, valued=False) for item in few.items], True
    rows = yield from _every(sent, lambda page: [sealer.open_item(item, valued=False) for item in page.items])
    shelf.keep(sent, now.cursor, rows)
    return rows, False


# ── conversations ───────────────────────────────────────────────────────────────────────────────────


def list_conversations(sealer: Sealer, shelf: Shelf, op: Conversations) -> Plan[ConversationPage]:
    """A page of conversations, by name."""
    if op.limit == 0:
        return ConversationPage([], op.cursor)
    if op.limit == 1 and op.prefix and op.cursor is None and not op.subtree:
        # What has exactly this name comes first. One conversation is asked after like this: it need not list them all.
        exact = replace(op, prefix=sealer.hide("conversation", op.namespace, op.prefix))
        [page] = yield Call([exact])
        for talk in page.conversations:
            return ConversationPage([sealer.open_conversation(talk)], cursors.page(op.namespace, op.prefix))
    rows = yield from _all_conversations(sealer, shelf, op)
    rows = _page_of(rows, op, lambda row: (row.namespace, row.name), reverse=False)
    if len(rows) <= op.limit:
        shelf.clear()
        return ConversationPage(rows)
    last = rows[op.limit - 1]
    return ConversationPage(rows[: op.limit], cursors.page(last.namespace, last.name))


def _all_conversations(sealer: Sealer, shelf: Shelf, op: Conversations) -> Plan[list[ConversationInfo]]:
    sent = replace(op, prefix="", limit=NAMES_AT_ONCE, cursor=None)
    [now] = yield Call([Changes(op.namespace, None, op.subtree)])
    rows = shelf.rows(sent, now.cursor)
    if rows is None:
        rows = yield from _every(sent, lambda page: [sealer.open_conversation(talk) for talk in page.conversations])
        shelf.keep(sent, now.cursor, rows)
    return rows


# ── both ────────────────────────────────────────────────────────────────────────────────────────────


def _every(op: Scan | Conversations, rows_of: Callable[[Any], list[T]]) -> Plan[list[T]]:
    """What stands on all pages of a listing."""
    rows: list[T] = []
    sent: Scan | Conversations | None = op
    while sent is not None:
        [page] = yield Call([sent])
        rows += rows_of(page)
        sent = flows.next_page(sent, page, None)
    return rows


def _page_of(
    rows: Sequence[T], op: Scan | Conversations, place: Callable[[T], tuple[str, str]], *, reverse: bool
) -> list[T]:
    """The rows that begin as they should, in order, from the cursor on."""
    last = None if op.cursor is None else cursors.sort_key(op.cursor, str, str)
    some = [
        row
        for row in rows
        if place(row)[1].startswith(op.prefix)
        and (last is None or (place(row) < last if reverse else place(row) > last))
    ]
    return sorted(some, key=place, reverse=reverse)
