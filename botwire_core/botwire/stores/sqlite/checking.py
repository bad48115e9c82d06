"""Whether a namespace's search index says what its rows say: for `botwire doctor`, and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import index
from .finding import new_recent, seen_below
from .index import ITEM, Counts
from .postings import Sql, unpack
from .recent import Recent, Seen

COMPARED = 5_000  # documents of a namespace whose terms are all compared; of more, some
_EVERYTHING = 1 << 62


def problems(sql: Sql, now: int) -> Iterator[str]:
    """What is wrong with the indexes of a store. Reads the rows and takes them in anew, and writes nothing."""
    for seen in seen_below(sql, now, "", subtree=True):
        if seen.generation is not None:
            for problem in _problems(sql, seen):
                yield f"the search index of {seen.name!r}: {problem}"


def _problems(sql: Sql, seen: Seen) -> Iterator[str]:
    state = index.read_state(sql, seen.id)
    assert state is not None  # it has a generation
    yield from _sums(sql, seen, state.counts)
    anew, known = Recent(seen, None), new_recent(sql, seen)
    for recent in (anew, known):
        recent.take_in(sql, seen, _EVERYTHING)
    if known.is_done(seen):
        yield from compare(sql, known, anew)


def _sums(sql: Sql, seen: Seen, counts: Counts) -> Iterator[str]:
    """Whether the tables agree with each other."""
    held = _documents(sql, seen.id)
    documents, terms = len(held), sum(map(len, held.values()))
    postings = sql("SELECT coalesce(sum(length(data)), 0) / 9 FROM search_postings WHERE namespace = ?", (seen.id,)).get
    blocks = sql("SELECT coalesce(sum(length(data)), 0) / 19 FROM search_blocks WHERE namespace = ?", (seen.id,)).get
    if not documents == blocks == counts.documents:
        yield f"{documents:,} documents, {blocks:,} in blocks, {counts.documents:,} counted"
    if terms != postings:
        yield f"{terms:,} terms of documents, {postings:,} in postings"


def _documents(sql: Sql, namespace: int) -> dict[int, list[str]]:
    """The documents that a namespace has in the file, and their terms."""
    ranges = [index.item_range(namespace)]
    rows = sql("SELECT conversation FROM search_conversations WHERE namespace = ?", (namespace,)).fetchall()
    ranges += [(conversation << 32, conversation << 32 | 0xFFFF_FFFF) for (conversation,) in rows]
    return {
        document: index.split(terms)
        for low, high in ranges
        for document, terms in sql(
            "SELECT document, terms FROM search_documents WHERE document BETWEEN ? AND ?", (low, high)
        ).fetchall()
    }


def compare(sql: Sql, known: Recent, anew: Recent) -> Iterator[str]:
    """What an index that has grown with the changes says otherwise than one that is made anew."""
    for field in ("documents", "words", "items"):
        says, counted = getattr(known.counts, field), getattr(anew.counts, field)
        if says != counted:
            yield f"it counts {says:,} {field}, and {counted:,} are there"
    authors = [{name: count for name, count in each.counts.authors.items() if count} for each in (known, anew)]
    if authors[0] != authors[1]:
        yield "it counts the messages of its authors wrongly"
    found = contents(sql, known)
    step = max(1, len(anew.added) // COMPARED)
    wrong = 0
    for held in list(anew.added.values())[::step]:
        name: Any = held.key if held.place is None else held.place
        wrong += found.get(name) != (dict(held.terms), held.row[1:2] + held.row[3:])
    if wrong:
        yield f"{wrong:,} documents are missing or differ from their rows"


def contents(sql: Sql, recent: Recent) -> dict[str | int, tuple[dict[str, int], tuple[Any, ...]]]:
    """Every document by its key or place: how often each term is in it, and its row but for id and session."""
    terms: dict[int, dict[str, int]] = {document: dict(held.terms) for document, held in recent.added.items()}
    if recent.base:
        for document in _documents(sql, recent.namespace):
            if document not in recent.gone:
                terms.setdefault(document, {})
        rows = sql("SELECT term, data FROM search_postings WHERE namespace = ?", (recent.namespace,)).fetchall()
        for term, data in rows:
            for document, count in unpack(data):
                if document not in recent.gone and document not in recent.added:
                    terms.setdefault(document, {})[term] = count
    found: dict[str | int, tuple[dict[str, int], tuple[Any, ...]]] = {}
    for document, counted in terms.items():
        place, key = recent.where_is(sql, document)
        row = recent.row(sql, document)
        name = key if document >= ITEM else place
        if name is not None and row is not None:
            found[name] = (counted, row[1:2] + row[3:])
    return found
