"""Which documents hold a term, and how often: pages of postings, in the order of the documents' ids."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

Sql = Callable[..., Any]

POSTINGS = 512  # to a page, at most

# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


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


def counts_in(sql: Sql, namespace: int, term: str, documents: Collection[int]) -> dict[int, int]:
    """Of these documents those that hold a term, and how often."""
    firsts = _firsts(sql, namespace, term)
    found: dict[int, int] = {}
    for first, wanted in _by_page(firsts, sorted(documents)).items() if documents else ():
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
    return numbers("q", data[: len(data) // 9 * 8])


def numbers(code: str, data: bytes) -> array[int]:
    """Packed numbers."""
    found = array(code, data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def packed(code: str, values: Iterable[int]) -> bytes:
    """Numbers, packed: little-endian, as in every file."""
    given = array(code, values)
    if sys.byteorder == "big":
        given.byteswap()
    return given.tobytes()


def _firsts(sql: Sql, namespace: int, term: str) -> list[int]:
    rows = sql(
        "SELECT first FROM search_postings WHERE namespace = ? AND term = ? ORDER BY first", (namespace, term)
    ).fetchall()
    return [first for (first,) in rows]


def _page(sql: Sql, namespace: int, term: str, first: int) -> bytes:
    """A page; empty if there is none."""
    data: bytes | None = sql(
        "SELECT data FROM search_postings WHERE namespace = ? AND term = ? AND first = ?", (namespace, term, first)
    ).get
    return data or b""


def _by_page(firsts: Sequence[int], documents: Sequence[int]) -> dict[int, Sequence[int]]:
    """Which page each document belongs to, in their order; before all pages there is room for one at 0."""
    last = firsts[-1] if firsts else 0
    if documents[0] >= last:
        return {last: documents}
    found: dict[int, list[int]] = {}
    for document in documents:
        place = bisect_right(firsts, document)
        found.setdefault(firsts[place - 1] if place else 0, []).append(document)
    return {**found}


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────


def write_term(sql: Sql, namespace: int, term: str, gone: AbstractSet[int], added: dict[int, int]) -> None:
    """Take documents out of a term's postings, and others in; `added` is in the order of its ids."""
    firsts = _firsts(sql, namespace, term)
    changed = sorted(gone | added.keys()) if gone else list(added)
    for first, documents in _by_page(firsts, changed).items():
        data = _page(sql, namespace, term, first) if firsts else b""
        held = len(data) // 9
        if held and not gone and documents[0] > _last_id(data) and held + len(documents) <= POSTINGS:
            new = added if len(documents) == len(added) else {document: added[document] for document in documents}
            grown = b"".join((data[: 8 * held], packed("q", new), data[8 * held :], _few(new.values())))
            sql(_WRITE_PAGE, (namespace, term, first, grown))
            continue
        merged = dict(unpack(data))
        for document in documents:
            merged.pop(document, None)
            if document in added:
                merged[document] = added[document]
        _write_pages(sql, namespace, term, first, sorted(merged.items()))


_WRITE_PAGE = "INSERT OR REPLACE INTO search_postings VALUES (?, ?, ?, ?)"


def _last_id(data: bytes) -> int:
    end = len(data) // 9 * 8
    return int.from_bytes(data[end - 8 : end], "little")


def _write_pages(sql: Sql, namespace: int, term: str, first: int, entries: list[tuple[int, int]]) -> None:
    """Write a page anew, with more behind it if it has become too long."""
    if not entries:
        sql("DELETE FROM search_postings WHERE namespace = ? AND term = ? AND first = ?", (namespace, term, first))
    for start in range(0, len(entries), POSTINGS):
        page = entries[start : start + POSTINGS]
        data = packed("q", [document for document, _ in page]) + _few([count for _, count in page])
        sql(_WRITE_PAGE, (namespace, term, page[0][0] if start else first, data))


def _few(counts: Collection[int]) -> bytes:
    """Counts in a byte each."""
    try:
        return bytes(counts)
    except ValueError:  # 255 times is as often as it gets
        return bytes(min(count, 255) for count in counts)
