"""A namespace's search index as it lies in the file: how it is packed, read and written.

It may lag behind the rows: what has changed since is kept in memory (`recent.py`) until some hundred changes are
written here together. A document can be taken out again exactly, for its terms stand beside it.
"""

from __future__ import annotations

import secrets
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import json

from botwire.search import Row, words

from .ledger import APPENDED

Sql = Callable[..., Any]

ITEM = 1 << 62  # ids of items begin here: below are conversation << 32 | position in it
POSTINGS = 512  # to a page, at most
MAX_AUTHORS = 1_000  # that are told apart in a namespace
_NO_AUTHOR = 0xFFFF
_MANY = 0xFFFF
_TABLES = ("search_blocks", "search_postings", "search_conversations", "search_pending", "search_namespaces")


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


class Added(msgspec.Struct):
    """A document to be written."""

    row: Row
    terms: dict[str, int]
    """How often each is in it."""
    place: int | None = None
    key: str | None = None


_read_counts = json.Decoder(Counts).decode


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


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


def postings(sql: Sql, namespace: int, term: str) -> dict[int, int]:
    """The documents that hold a term, and how often."""
    found: dict[int, int] = {}
    for (data,) in sql("SELECT data FROM search_postings WHERE namespace = ? AND term = ?", (namespace, term)):
        found.update(unpack(data))
    return found


def frequency(sql: Sql, namespace: int, term: str) -> int:
    """In how many documents a term is."""
    size: int = sql(
        "SELECT coalesce(sum(length(data)), 0) FROM search_postings WHERE namespace = ? AND term = ?", (namespace, term)
    ).get
    return size // 9


def counts_in(sql: Sql, namespace: int, term: str, documents: Iterable[int]) -> dict[int, int]:
    """Of these documents those that hold a term, and how often."""
    firsts = _firsts(sql, namespace, term)
    found: dict[int, int] = {}
    for first, wanted in _by_page(firsts, sorted(documents)).items():
        data = _page(sql, namespace, term, first)
        ids, held = _ids(data), data[len(data) // 9 * 8 :]
        for document in wanted:
            place = bisect_right(ids, document) - 1
            if place >= 0 and ids[place] == document:
                found[document] = held[place]
    return found


def vocabulary(sql: Sql, namespace: int, first: str, end: str | None, limit: int) -> list[str]:
    """Terms from `first` until before `end`, at most `limit`."""
    rows = sql(
        "SELECT DISTINCT term FROM search_postings WHERE namespace = ?1 AND term >= ?2 "
        "AND (?3 IS NULL OR term < ?3) LIMIT ?4",
        (namespace, first, end, limit),
    ).fetchall()
    return [term for (term,) in rows]


def unpack(data: bytes) -> Iterator[tuple[int, int]]:
    """A page of postings as pairs of a document and how often the term is in it."""
    return zip(_ids(data), data[len(data) // 9 * 8 :], strict=True)


def _ids(data: bytes) -> array[int]:
    return _numbers("q", data[: len(data) // 9 * 8])


def _numbers(code: str, data: bytes) -> array[int]:
    numbers = array(code, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _packed(code: str, values: Iterable[int]) -> bytes:
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _firsts(sql: Sql, namespace: int, term: str) -> list[int]:
    rows = sql(
        "SELECT first FROM search_postings WHERE namespace = ? AND term = ? ORDER BY first", (namespace, term)
    ).fetchall()
    return [first for (first,) in rows]


def _page(sql: Sql, namespace: int, term: str, first: int) -> bytes:
    data: bytes = sql(
        "SELECT data FROM search_postings WHERE namespace = ? AND term = ? AND first = ?", (namespace, term, first)
    ).get
    return data


def _by_page(firsts: Sequence[int], documents: Iterable[int]) -> dict[int, list[int]]:
    """Which page each document belongs to; what comes before all pages belongs to the first."""
    if not firsts:
        return {}
    found: dict[int, list[int]] = {}
    for document in documents:
        found.setdefault(firsts[max(0, bisect_right(firsts, document) - 1)], []).append(document)
    return found


# ── blocks ──────────────────────────────────────────────────────────────────────────────────────────


class Block:
    """What ranking needs to know of up to 256 documents with neighbouring ids, in columns."""

    __slots__ = ("at", "authors", "flags", "offsets", "sessions", "words")

    def __init__(self, data: bytes) -> None:
        count = len(data) // 19
        self.at = _numbers("q", data[: 8 * count])
        self.sessions = _numbers("I", data[8 * count : 12 * count])
        self.words = _numbers("H", data[12 * count : 14 * count])
        self.flags = _numbers("H", data[14 * count : 16 * count])
        self.authors = _numbers("H", data[16 * count : 18 * count])
        self.offsets = data[18 * count :]

    def row(self, document: int, authors: Sequence[str]) -> Row | None:
        """A document's row, if it is here."""
        place = self.offsets.find(document & 0xFF)
        return None if place < 0 else self._row(place, document, authors)

    def _row(self, place: int, document: int, authors: Sequence[str]) -> Row:
        if document >= ITEM:
            return Row(document, self.words[place], None, None, self.at[place], self.flags[place])
        author = self.authors[place]
        return Row(
            document,
            self.words[place],
            document >> 32 << 32 | self.sessions[place],
            authors[author] if author < len(authors) else None,
            self.at[place],
            self.flags[place],
        )

    def rows(self, block: int, authors: Sequence[str]) -> Iterator[Row]:
        """Every document's row."""
        for place, offset in enumerate(self.offsets):
            yield self._row(place, block << 8 | offset, authors)


def pack_block(rows: Sequence[Row], authors: Mapping[str, int]) -> bytes:
    """A block's data, of rows in the order of their ids."""
    return b"".join(
        (
            _packed("q", (row.at or 0 for row in rows)),
            _packed("I", ((row.session or 0) & 0xFFFF_FFFF for row in rows)),
            _packed("H", (min(row.words, _MANY) for row in rows)),
            _packed("H", (row.flags & 0xFFFF for row in rows)),
            _packed("H", (authors.get(row.author or "", _NO_AUTHOR) for row in rows)),
            bytes(row.id & 0xFF for row in rows),
        )
    )


def read_block(sql: Sql, namespace: int, block: int) -> Block | None:
    """A block, if there is one."""
    data = sql("SELECT data FROM search_blocks WHERE namespace = ? AND block = ?", (namespace, block)).get
    return None if data is None else Block(data)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────


def write(sql: Sql, namespace: int, state: State, added: Collection[Added], gone: Collection[int]) -> None:
    """Take documents out and others in, and write the state's row. An id may be in both."""
    changed: dict[str, tuple[set[int], dict[int, int]]] = {}
    for document in gone:
        for term in _take_out(sql, document):
            changed.setdefault(term, (set(), {}))[0].add(document)
    for each in added:
        document = each.row.id
        sql(
            "INSERT INTO search_documents VALUES (?, ?, ?, ?, ?)",
            (document, namespace, each.place, each.key, "\n".join(each.terms).encode()),
        )
        for term, count in each.terms.items():
            changed.setdefault(term, (set(), {}))[1][document] = min(count, 255)
    for term in sorted(changed):
        _write_term(sql, namespace, term, *changed[term])
    _write_blocks(sql, namespace, state.counts, [each.row for each in added], gone)
    write_state(sql, namespace, state)


def write_state(sql: Sql, namespace: int, state: State) -> None:
    """Write how far the index has come."""
    sql(
        "INSERT OR REPLACE INTO search_namespaces VALUES (?, ?, ?, ?, ?)",
        (namespace, state.version, state.generation, state.terms, json.encode(state.counts).decode()),
    )


def _take_out(sql: Sql, document: int) -> list[str]:
    """Delete a document's entry; returns its terms."""
    terms = sql("DELETE FROM search_documents WHERE document = ? RETURNING terms", (document,)).get
    return split(terms) if terms else []


def split(terms: bytes) -> list[str]:
    """The terms of a document's entry."""
    return terms.decode().split("\n") if terms else []


def terms_of(sql: Sql, document: int) -> list[str]:
    """The terms that a document has in the index."""
    return split(sql("SELECT terms FROM search_documents WHERE document = ?", (document,)).get or b"")


def _write_term(sql: Sql, namespace: int, term: str, gone: set[int], added: dict[int, int]) -> None:
    firsts = _firsts(sql, namespace, term)
    if not firsts:
        _insert_pages(sql, namespace, term, sorted(added.items()))
        return
    for first, documents in _by_page(firsts, sorted(gone | added.keys())).items():
        data = _page(sql, namespace, term, first)
        new = {document: added[document] for document in documents if document in added}
        if len(new) == len(documents) <= POSTINGS - len(data) // 9 and documents[0] > _ids(data)[-1]:
            _append(sql, (namespace, term, first), data, new)
            continue
        merged = dict(unpack(data))
        for document in documents:
            merged.pop(document, None)
        merged.update(new)
        _write_page(sql, namespace, term, first, sorted(merged.items()))


def _append(sql: Sql, key: tuple[int, str, int], data: bytes, new: dict[int, int]) -> None:
    """Write a page that only gains documents at its end."""
    middle = len(data) // 9 * 8
    grown = b"".join((data[:middle], _packed("q", new), data[middle:], bytes(new.values())))
    sql("UPDATE search_postings SET data = ? WHERE namespace = ? AND term = ? AND first = ?", (grown, *key))


def _write_page(sql: Sql, namespace: int, term: str, first: int, entries: list[tuple[int, int]]) -> None:
    key = (namespace, term, first)
    if not entries:
        sql("DELETE FROM search_postings WHERE namespace = ? AND term = ? AND first = ?", key)
        return
    data = _packed_postings(entries[:POSTINGS])
    sql("UPDATE search_postings SET data = ? WHERE namespace = ? AND term = ? AND first = ?", (data, *key))
    _insert_pages(sql, namespace, term, entries[POSTINGS:])


def _insert_pages(sql: Sql, namespace: int, term: str, entries: list[tuple[int, int]]) -> None:
    for start in range(0, len(entries), POSTINGS):
        page = entries[start : start + POSTINGS]
        sql("INSERT INTO search_postings VALUES (?, ?, ?, ?)", (namespace, term, page[0][0], _packed_postings(page)))


def _packed_postings(entries: Sequence[tuple[int, int]]) -> bytes:
    return _packed("q", (document for document, _ in entries)) + bytes(count for _, count in entries)


def _write_blocks(sql: Sql, namespace: int, counts: Counts, added: Iterable[Row], gone: Iterable[int]) -> None:
    authors = list(counts.authors)
    numbers = {name: number for number, name in enumerate(authors)}
    changed: dict[int, dict[int, Row | None]] = {}
    for document in gone:
        changed.setdefault(document >> 8, {})[document] = None
    for row in added:
        changed.setdefault(row.id >> 8, {})[row.id] = row
    for block, rows in changed.items():
        held = read_block(sql, namespace, block)
        merged: dict[int, Row | None] = {row.id: row for row in held.rows(block, authors)} if held else {}
        merged.update(rows)
        left = [row for _, row in sorted(merged.items()) if row is not None]
        if not left:
            sql("DELETE FROM search_blocks WHERE namespace = ? AND block = ?", (namespace, block))
            continue
        times = [row.at or 0 for row in left]
        sql(
            "INSERT OR REPLACE INTO search_blocks VALUES (?, ?, ?, ?, ?)",
            (namespace, block, min(times), max(times), pack_block(left, numbers)),
        )


# ── without taking in: what must leave the file at once ─────────────────────────────────────────────


def drop(sql: Sql, namespace: int) -> None:
    """Forget the namespace's index."""
    found = sql("SELECT conversation FROM search_conversations WHERE namespace = ?", (namespace,)).fetchall()
    for (conversation,) in found:
        sql(
            "DELETE FROM search_documents WHERE document BETWEEN ? AND ?",
            (conversation << 32, conversation << 32 | 0xFFFF_FFFF),
        )
    sql("DELETE FROM search_documents WHERE document BETWEEN ? AND ?", item_range(namespace))
    for table in _TABLES:
        sql(f"DELETE FROM {table} WHERE namespace = ?", (namespace,))


def take_out(sql: Sql, namespace: int, documents: Collection[int]) -> None:
    """Take documents out of the index, whatever else has changed."""
    state = read_state(sql, namespace)
    if state is None or not documents:
        return
    rows = read_rows(sql, namespace, documents, list(state.counts.authors))
    for row in rows:
        uncount(state.counts, row)
    state.generation = new_generation()
    write(sql, namespace, state, (), documents)


def blank(sql: Sql, namespace: int, document: int) -> None:
    """Have a document found by none of its terms, until it is taken in again in its place."""
    state = read_state(sql, namespace)
    if state is None:
        return
    for term in sorted(terms_of(sql, document)):
        _write_term(sql, namespace, term, {document}, {})
    sql("UPDATE search_documents SET terms = x'' WHERE document = ?", (document,))
    state.generation = new_generation()
    write_state(sql, namespace, state)


def read_rows(sql: Sql, namespace: int, documents: Iterable[int], authors: Sequence[str]) -> list[Row]:
    """Documents' rows."""
    blocks: dict[int, list[int]] = {}
    for document in documents:
        blocks.setdefault(document >> 8, []).append(document)
    rows: list[Row] = []
    for number, wanted in blocks.items():
        if (block := read_block(sql, namespace, number)) is not None:
            rows += [row for document in wanted if (row := block.row(document, authors)) is not None]
    return rows


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


def count(counts: Counts, row: Row) -> None:
    """Count a document in."""
    counts.documents += 1
    counts.words += row.words
    if row.session is None:
        counts.items += 1
        return
    if row.author is not None and (row.author in counts.authors or len(counts.authors) < MAX_AUTHORS):
        counts.authors[row.author] = counts.authors.get(row.author, 0) + 1
    if row.at is not None:
        counts.first_at = min(counts.first_at or row.at, row.at)
        counts.last_at = max(counts.last_at, row.at)


def uncount(counts: Counts, row: Row) -> None:
    """Count a document out."""
    counts.documents -= 1
    counts.words -= row.words
    if row.session is None:
        counts.items -= 1
    elif row.author is not None and row.author in counts.authors:
        counts.authors[row.author] -= 1


def new_generation() -> int:
    """A number that no index has had."""
    return secrets.randbits(62)


def new_state(version: int) -> State:
    """The state of an index that has taken in nothing yet."""
    return State(version, 0, words.VERSION, Counts(walk=Walk(version)))


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
