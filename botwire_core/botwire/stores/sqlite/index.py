"""A namespace's search index as it lies in the file: how far it has come, and what must leave it at once.

It may lag behind the rows: what has changed since is kept in memory (`recent.py`) until some hundred changes are
written together (`indexing.py`). A document can be taken out again exactly, for its terms stand beside it.

Every write looks into this module, so it stays small: the ranking is loaded by the first search.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec
from msgspec import json

from .ledger import APPENDED
from .postings import Sql, write_term

ITEM = 1 << 62  # ids of items begin here: below are conversation << 32 | position in it
_TABLES = ("search_blocks", "search_postings", "search_conversations", "search_pending", "search_namespaces")
_VECTORS = ("search_vectors", "search_embedders")


class Walk(msgspec.Struct, omit_defaults=True):
    """Where the taking in of what was there before the index goes on."""

    version: int
    """What is newer is found among the changes."""
    key: str | None = ""
    """Behind this key; `None`: all items are in."""
    talk: str = ""
    """In the conversation of this name, behind `place`."""
    conversation: int = 0
    place: int = 0
    position: int = 0
    session: int = 0
    at: int = 0
    before: bool = False
    """Whether it was all there before there was search, or an index made otherwise."""


class Counts(msgspec.Struct, omit_defaults=True):
    """What an index counts, and where it goes on."""

    documents: int = 0
    words: int = 0
    items: int = 0
    numbers: int = 0
    """Given out to items."""
    authors: dict[str, int] = {}
    """How many messages each has written. Their order is that of their numbers in the blocks."""
    first_at: int = 0
    last_at: int = 0
    walk: Walk | None = None


class State(msgspec.Struct):
    """The row of a namespace in `search_namespaces`."""

    version: int
    generation: int
    terms: int
    counts: Counts


class Talk(msgspec.Struct):
    """Where a conversation's next message goes."""

    conversation: int
    position: int = 0
    session: int = 0
    at: int = 0


_read_counts = json.Decoder(Counts).decode


def read_state(sql: Sql, namespace: int) -> State | None:
    """How far the namespace's index has come, or `None` if it has none."""
    row = sql("SELECT version, generation, terms, counts FROM search_namespaces WHERE namespace = ?", (namespace,)).get
    if row is None:
        return None
    version, generation, terms, counts = row
    return State(version, generation, terms, _read_counts(counts))


def item_range(namespace: int) -> tuple[int, int]:
    """The first and last id of a namespace's items."""
    first = ITEM | namespace << 32
    return first, first | 0xFFFF_FFFF


def write_state(sql: Sql, namespace: int, state: State) -> None:
    """Write how far the index has come."""
    sql(
        "INSERT OR REPLACE INTO search_namespaces VALUES (?, ?, ?, ?, ?)",
        (namespace, state.version, state.generation, state.terms, json.encode(state.counts).decode()),
    )


def new_generation() -> int:
    """A number that no index has had."""
    return secrets.randbits(62)


# ── documents ───────────────────────────────────────────────────────────────────────────────────────


def split(terms: bytes) -> list[str]:
    """The terms of a document's entry."""
    return terms.decode().split("\n") if terms else []


def terms_of(sql: Sql, document: int) -> list[str]:
    """The terms that a document has in the index."""
    return split(sql("SELECT terms FROM search_documents WHERE document = ?", (document,)).get or b"")


def document_of_key(sql: Sql, namespace: int, key: str) -> int | None:
    """An item's document, if it is indexed."""
    found: int | None = sql(
        "SELECT document FROM search_documents WHERE namespace = ? AND key = ?", (namespace, key)
    ).get
    return found


def document_of_place(sql: Sql, place: int) -> int | None:
    """A message's document, if it is indexed."""
    found: int | None = sql("SELECT document FROM search_documents WHERE place = ?", (place,)).get
    return found


def documents_of(sql: Sql, namespace: int, key: str | None, conversation: str | None) -> list[int]:
    """The documents of a key, or of a conversation: also of one that had its name and was cleared."""
    document = None if key is None else document_of_key(sql, namespace, key)
    rows = sql(
        "SELECT id FROM conversations WHERE namespace = ?1 AND name = ?2 "
        "UNION SELECT conversation FROM search_conversations WHERE namespace = ?1 AND name = ?2",
        (namespace, conversation),
    ).fetchall()
    found = [] if document is None else [document]
    for (each,) in rows:
        found += [
            document
            for (document,) in sql(
                "SELECT document FROM search_documents WHERE document BETWEEN ? AND ?",
                (each << 32, each << 32 | 0xFFFF_FFFF),
            ).fetchall()
        ]
    return found


# ── what must leave the file at once ────────────────────────────────────────────────────────────────


def drop(sql: Sql, namespace: int, *, vectors: bool = True) -> None:
    """Forget the namespace's index; `vectors=False` leaves those to be used again."""
    found = sql("SELECT conversation FROM search_conversations WHERE namespace = ?", (namespace,)).fetchall()
    for (conversation,) in found:
        sql(
            "DELETE FROM search_documents WHERE document BETWEEN ? AND ?",
            (conversation << 32, conversation << 32 | 0xFFFF_FFFF),
        )
    sql("DELETE FROM search_documents WHERE document BETWEEN ? AND ?", item_range(namespace))
    for table in (*_TABLES, *(_VECTORS if vectors else ())):
        sql(f"DELETE FROM {table} WHERE namespace = ?", (namespace,))


def blank(sql: Sql, namespace: int, document: int) -> None:
    """Have a document found by none of its terms, until it is taken in again in its place."""
    state = read_state(sql, namespace)
    if state is None:
        return
    for term in sorted(terms_of(sql, document)):
        write_term(sql, namespace, term, {document}, {})
    digest = sql("SELECT digest FROM search_documents WHERE document = ?", (document,)).get
    sql("UPDATE search_documents SET terms = x'', digest = NULL WHERE document = ?", (document,))
    drop_vectors(sql, namespace, [digest])
    state.generation = new_generation()
    write_state(sql, namespace, state)


def drop_vectors(sql: Sql, namespace: int, digests: Iterable[int | None]) -> None:
    """Delete the vectors of documents that are gone, unless others say the same."""
    for digest in digests:
        if digest:
            sql(
                "DELETE FROM search_vectors WHERE namespace = ?1 AND digest = ?2 "
                "AND NOT EXISTS (SELECT 1 FROM search_documents WHERE namespace = ?1 AND digest = ?2)",
                (namespace, digest),
            )


def erased(sql: Sql, namespace: int, version: int, *, key: str | None, conversation: str | None) -> None:
    """A key or conversation was erased: its name goes, and all other changes up to this version are pending."""
    sql("DELETE FROM search_pending WHERE namespace = ? AND name = ? AND kind < ?", (namespace, key, APPENDED))
    sql(
        "DELETE FROM search_pending WHERE namespace = ? AND name = ? AND kind >= ?", (namespace, conversation, APPENDED)
    )
    sql("DELETE FROM search_conversations WHERE namespace = ? AND name = ?", (namespace, conversation))
    sql(
        "UPDATE search_namespaces SET version = ?, generation = ? WHERE namespace = ?",
        (version, new_generation(), namespace),
    )


# ── what the feed lets go of ────────────────────────────────────────────────────────────────────────


def keep_pending(sql: Sql, namespace: int, version: int) -> None:
    """Before the feed lets go of its changes up to a version: keep what is not indexed yet."""
    sql(
        "INSERT INTO search_pending SELECT c.namespace, c.kind, coalesce(c.name, ''), min(c.version), max(c.version) "
        "FROM search_namespaces s JOIN changes_of_namespace f ON f.namespace = s.namespace "
        "AND f.version > s.version AND f.version <= ?2 JOIN changes c ON c.sequence = f.sequence "
        "WHERE s.namespace = ?1 GROUP BY c.kind, c.name "
        "ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)",
        (namespace, version),
    )
