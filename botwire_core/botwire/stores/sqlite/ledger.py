"""Namespace rows: the lock, the clock and the meter.

Inside a transaction the ledger knows each namespace's row, gives out versions and times, counts, and writes the
rows back once, before the commit. Between transactions it keeps what it knows for as long as nobody
else has written to the file.
"""

from __future__ import annotations

import copy
from typing import Any

import apsw
import msgspec

from botwire.errors import Conflict, QuotaExceeded, RateLimited, StoreError
from botwire.ops import DEFAULTS, MICROSECONDS, Policy

KINDS = ("set", "deleted", "touched", "expired", "appended", "edited", "trimmed", "cleared")
SET, DELETED, TOUCHED, EXPIRED, APPENDED, EDITED, TRIMMED, CLEARED = range(len(KINDS))
ON_CONVERSATION = frozenset({APPENDED, EDITED, TRIMMED})

DAY = 86_400 * MICROSECONDS
MAX_VERSION = 2**32 - 1  # a message's place holds its version in 32 bits
_MAX_KNOWN = 10_000
INDEXED_TOGETHER = 256  # changes; readers of one namespace's feed look at up to this many of everybody's

_COLUMNS = (
    "id, name, version, created, updated, items, messages, conversations, bytes, day, writes, sweep_at, "
    "floor, floor_at, feed_floor, feed_trimmed, loading, policy"
)
_SELECT = f"SELECT {_COLUMNS} FROM namespaces WHERE name = ?"
_UPDATE = (
    "UPDATE namespaces SET version=?, updated=?, items=?, messages=?, conversations=?, bytes=?, day=?, writes=?, "
    "sweep_at=?, floor=?, floor_at=?, feed_floor=?, feed_trimmed=?, loading=? WHERE id=?"
)
_read_policy = msgspec.json.Decoder(Policy).decode


class Namespace(msgspec.Struct):
    """A namespace's row."""

    id: int
    name: str
    version: int
    created: int
    updated: int
    items: int
    messages: int
    conversations: int
    bytes: int
    day: int
    writes: int
    sweep_at: int
    floor: int
    floor_at: int
    feed_floor: int
    feed_trimmed: int
    loading: int
    own_policy: Policy
    policy: Policy
    """The own policy over the store's."""
    dirty: bool = False

    def due(self, when: int) -> None:
        """Have the namespace swept at `when` at the latest."""
        if not self.sweep_at or when < self.sweep_at:
            self.sweep_at = when

    def forget(self, version: int, updated: int) -> None:
        """Deletions up to here are no longer remembered."""
        self.floor = max(self.floor, version)
        self.floor_at = max(self.floor_at, updated)


def read_policy(text: bytes | None) -> Policy:
    """A policy from its column."""
    return Policy() if text is None else _read_policy(text)


class Ledger:
    """The rows of the namespaces that a transaction touches."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._sql = connection.cursor().execute
        self._data_version = -1
        self._known: dict[str, Namespace] = {}
        self._dirty: list[Namespace] = []
        self._touched: set[str] = set()
        self._saved: dict[str, Namespace | None] | None = None
        self._saved_store = (0, 0, 0, 0, 0)
        self.now = 0
        self.mark = 0
        self.sequence = 0
        self.trimmed = 0
        self.erased = 0
        self.indexed = 0
        self._stored = (0, 0, 0)
        self.defaults = DEFAULTS

    # ── the transaction's frame ──

    def begin(self, now: int) -> bool:
        """Start a transaction, whose lock is held already: drop what others have made untrue. True if others wrote."""
        self.now = now
        self._touched = set()
        data_version = self._connection.data_version()
        if data_version != self._data_version or len(self._known) > _MAX_KNOWN:
            others_wrote = self._data_version not in (-1, data_version)
            self.forget()
            self._load_store()
            return others_wrote
        return False

    def committed(self) -> None:
        """What is known stands, until this number of the file changes by somebody else's commit."""
        self._data_version = self._connection.data_version()

    def forget(self) -> None:
        """Know nothing: after a rollback, or when others have written."""
        self._known.clear()
        self._dirty.clear()
        self._saved = None
        self._data_version = -1

    def forget_namespaces(self) -> None:
        """The store's policy changed: read every row afresh, below the rows that a savepoint remembers."""
        if self._saved is not None:
            for name, row in self._known.items():
                self._saved.setdefault(name, copy.copy(row))
        self._known.clear()
        self._load_store()

    def _load_store(self) -> None:
        row: Any = self._sql(
            "SELECT mark, trimmed, erased, indexed, policy, "
            "max(sequence, coalesce((SELECT max(sequence) FROM changes), 0)) FROM store"
        ).get
        self.mark, self.trimmed, self.erased, self.indexed, policy, self.sequence = row
        self._stored = (self.mark, self.trimmed, self.indexed)
        self.defaults = read_policy(policy).over(DEFAULTS)

    def save(self) -> None:
        """Remember everything as it is, so that `restore` can bring it back. Call it before the savepoint."""
        self.flush()
        self._saved = {}
        self._saved_store = (self.mark, self.sequence, self.trimmed, self.erased, self.indexed)

    def restore(self) -> None:
        """Undo all since `save`."""
        for name, before in (self._saved or {}).items():
            if before is None:
                self._known.pop(name, None)
            else:
                self._known[name] = before
        self._dirty = [self._known[each.name] for each in self._dirty if each.name in self._known]
        self.mark, self.sequence, self.trimmed, self.erased, self.indexed = self._saved_store
        self._stored = (self.mark, self.trimmed, self.indexed)
        self._saved = None

    def keep(self) -> None:
        """Give up the savepoint: what was done since stands."""
        self._saved = None

    def flush(self) -> set[str]:
        """Write the changed rows back. Returns the names of all that this transaction has changed so far."""
        for row in self._dirty:
            if not row.dirty:
                continue
            row.dirty = False
            self._touched.add(row.name)
            self._sql(
                _UPDATE,
                (
                    row.version,
                    row.updated,
                    row.items,
                    row.messages,
                    row.conversations,
                    row.bytes,
                    row.day,
                    row.writes,
                    row.sweep_at,
                    row.floor,
                    row.floor_at,
                    row.feed_floor,
                    row.feed_trimmed,
                    row.loading,
                    row.id,
                ),
            )
        self._dirty.clear()
        if self.sequence - self.indexed >= INDEXED_TOGETHER:
            self.index_feed()
        if self._stored != (self.mark, self.trimmed, self.indexed):
            self._stored = (self.mark, self.trimmed, self.indexed)
            self._sql("UPDATE store SET mark = ?, trimmed = ?, indexed = ?", self._stored)
        return self._touched

    def index_feed(self) -> None:
        """Enter the newest changes in the index by namespace."""
        self._sql(
            "INSERT INTO changes_of_namespace SELECT namespace, version, sequence FROM changes WHERE sequence > ? "
            "ORDER BY namespace, version",
            (self.indexed,),
        )
        self.indexed = self.sequence

    # ── namespaces ──

    def find(self, name: str) -> Namespace | None:
        """The namespace's row, if it has one."""
        row = self._known.get(name) or self._read(name)
        if row is not None and self._saved is not None and name not in self._saved:
            self._saved[name] = copy.copy(row)
        return row if row is not None and row.id else None

    def _read(self, name: str) -> Namespace | None:
        columns: Any = self._sql(_SELECT, (name,)).get
        if columns is None:
            return None
        own = read_policy(columns[-1])
        row: Namespace = Namespace(*columns[:-1], own, own.over(self.defaults))  # type: ignore[call-arg]  # _COLUMNS are its fields, in order
        self._known[name] = row
        return row

    def open(self, name: str, *, loading: bool = False) -> Namespace:
        """The namespace's row; one that is not there yet is stored with its first change.

        Refuses while a `Load` is under way, unless it is the load that asks.
        """
        row = self.find(name) or self._known.get(name) or self._new(name)
        if row.loading and not loading:
            raise Conflict(
                f"an import into {name!r} is under way, or was cut off: run it again, or erase the namespace"
            )
        return row

    def _new(self, name: str) -> Namespace:
        # A cursor from an earlier life of this name lies below the mark: it has expired.
        row = Namespace(
            id=0, name=name, version=self.mark, created=self.now, updated=self.now, items=0, messages=0,
            conversations=0, bytes=0, day=0, writes=0, sweep_at=0, floor=0, floor_at=0, feed_floor=self.mark,
            feed_trimmed=self.erased, loading=0, own_policy=Policy(), policy=self.defaults,
        )  # fmt: skip
        if self._saved is not None:
            self._saved.setdefault(name, None)
        self._known[name] = row
        return row

    def store(self, row: Namespace) -> None:
        """Give a new namespace its place in the table."""
        if not row.id:
            row.version = row.feed_floor = max(row.version, self.mark)
            row.created = row.updated = self.now
            self._sql(
                "INSERT INTO namespaces (name, version, created, updated) VALUES (?, ?, ?, ?)",
                (row.name, row.version, row.created, row.updated),
            )
            row.id = self._connection.last_insert_rowid()
            self.mark_dirty(row)

    def drop(self, row: Namespace) -> None:
        """Forget a namespace that is erased; those made after it start above its versions."""
        self.mark = max(self.mark, row.version + 1)  # + 1: the newest cursor has expired too
        for known in [known for known in self._known.values() if not known.id]:
            del self._known[known.name]
        self._known.pop(row.name, None)
        row.dirty = False

    def cut(self) -> int:
        """Something is erased: enter its place in the store-wide order, before which feeds have holes."""
        self.sequence += 1
        self.erased = self.sequence
        self._sql("UPDATE store SET sequence = ?, erased = ?", (self.sequence, self.erased))
        return self.erased

    # ── the clock, the log and the meter ──

    def take(self, row: Namespace, kind: int, name: str | None) -> tuple[int, int]:
        """The next version of the namespace and its time; the change is entered in the feed."""
        if not row.id:
            self.store(row)
        row.version = version = row.version + 1
        if version > MAX_VERSION:
            raise StoreError(f"namespace {row.name!r} has used up its versions: copy it to a new one")
        updated = row.updated = max(self.now, row.updated)
        day = self.now // DAY
        if day != row.day:
            row.day, row.writes = day, 0
        row.writes += 1
        if not row.dirty:
            row.dirty = True
            self._dirty.append(row)
        self.sequence += 1
        self._sql(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", (self.sequence, row.id, version, updated, kind, name)
        )
        return version, updated

    def mark_dirty(self, row: Namespace) -> None:
        """Have the row written back."""
        if not row.dirty:
            row.dirty = True
            self._dirty.append(row)

    def admit(self, row: Namespace, writes: int = 1, items: int = 0, size: int = 0) -> None:
        """Raise `RateLimited` or `QuotaExceeded` if this much more does not fit."""
        policy = row.policy
        if not (policy.writes_per_day or policy.max_items or policy.max_bytes):
            return
        if policy.writes_per_day:
            today = self.now // DAY
            used = row.writes if row.day == today else 0
            if used + writes > policy.writes_per_day:
                seconds = ((today + 1) * DAY - self.now) // MICROSECONDS + 1
                raise RateLimited(
                    seconds,
                    f"namespace {row.name!r} has made {used:,} of its {policy.writes_per_day:,} writes today: "
                    f"retry in {seconds:,} seconds, or raise writes_per_day",
                )
        if items > 0 and policy.max_items and row.items + items > policy.max_items:
            raise QuotaExceeded(
                f"namespace {row.name!r} holds {row.items:,} items, its limit is {policy.max_items:,}: "
                "delete some, or raise max_items"
            )
        if size > 0 and policy.max_bytes and row.bytes + size > policy.max_bytes:
            raise QuotaExceeded(
                f"namespace {row.name!r} holds {row.bytes:,} bytes, {size:,} more go over its limit of "
                f"{policy.max_bytes:,}: delete some, or raise max_bytes"
            )
