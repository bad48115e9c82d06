"""Taking documents into a namespace's index in the file, and out of it; what ranking needs to know of them, packed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from botwire.search import Row

from . import index
from .index import ITEM, Counts, State, new_generation, read_state, split, write_state
from .postings import Sql, numbers, packed, write_term

MAX_AUTHORS = 1_000  # that are told apart in a namespace
_NO_AUTHOR = 0xFFFF
_NOTHING: frozenset[int] = frozenset()
_MANY = 0xFFFF


class Added(msgspec.Struct):
    """A document to be written."""

    row: Row
    terms: dict[str, int]
    """How often each is in it."""
    place: int | None = None
    key: str | None = None
    digest: int | None = None
    """Of what is to be embedded, where there is an embedder."""


# ── blocks ──────────────────────────────────────────────────────────────────────────────────────────


class Block:
    """What ranking needs to know of up to 256 documents with neighbouring ids, in columns."""

    __slots__ = ("at", "authors", "flags", "offsets", "sessions", "words")

    def __init__(self, data: bytes) -> None:
        count = len(data) // 19
        self.at = numbers("q", data[: 8 * count])
        self.sessions = numbers("I", data[8 * count : 12 * count])
        self.words = numbers("H", data[12 * count : 14 * count])
        self.flags = numbers("H", data[14 * count : 16 * count])
        self.authors = numbers("H", data[16 * count : 18 * count])
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
            packed("q", (row.at or 0 for row in rows)),
            packed("I", ((row.session or 0) & 0xFFFF_FFFF for row in rows)),
            packed("H", (min(row.words, _MANY) for row in rows)),
            packed("H", (row.flags & 0xFFFF for row in rows)),
            packed("H", (authors.get(row.author or "", _NO_AUTHOR) for row in rows)),
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
    out: defaultdict[str, set[int]] = defaultdict(set)
    new: defaultdict[str, dict[int, int]] = defaultdict(dict)
    digests: list[int | None] = []
    for document in gone:
        terms, digest = _take_out(sql, document)
        digests.append(digest)
        for term in terms:
            out[term].add(document)
    for each in sorted(added, key=_id_of):
        document = each.row.id
        sql(
            "INSERT INTO search_documents VALUES (?1, ?2, ?3, ?4, ?5, "
            "(SELECT digest FROM search_vectors WHERE namespace = ?2 AND digest = ?6))",
            (document, namespace, each.place, each.key, "\n".join(each.terms).encode(), each.digest),
        )
        for term, count in each.terms.items():
            new[term][document] = count
    index.drop_vectors(sql, namespace, digests)
    for term in sorted(out.keys() | new.keys()):
        write_term(sql, namespace, term, out.get(term, _NOTHING), new.get(term, {}))
    _write_blocks(sql, namespace, state.counts, [each.row for each in added], gone)
    write_state(sql, namespace, state)


def _id_of(added: Added) -> int:
    return added.row.id


def _take_out(sql: Sql, document: int) -> tuple[list[str], int | None]:
    """Delete a document's entry; returns its terms, and the digest of what was embedded of it."""
    terms, digest = sql("DELETE FROM search_documents WHERE document = ? RETURNING terms, digest", (document,)).get or (
        b"",
        None,
    )
    return split(terms), digest


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


def take_out(sql: Sql, namespace: int, documents: Collection[int]) -> None:
    """Take documents out of the index, whatever else has changed, and nothing of them stays."""
    state = read_state(sql, namespace)
    if state is None or not documents:
        return
    rows = read_rows(sql, namespace, documents, list(state.counts.authors))
    for row in rows:
        uncount(state.counts, row)
    state.counts.authors = {  # the others keep their numbers
        name if count > 0 else f"\x00{number}": count
        for number, (name, count) in enumerate(state.counts.authors.items())
    }
    state.generation = new_generation()
    write(sql, namespace, state, (), documents)


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


# ── counting ────────────────────────────────────────────────────────────────────────────────────────


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
