"""From a question to its hits: what is read from an index, in which order, and how much of it.

In a small scope the postings of every term are read. In a large one the rare terms find the candidates, and common
ones only score them: reading the postings of common words is what makes full-text search slow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from . import authors, typos
from .documents import CALLED
from .fusion import scaled
from .index import Index, Postings, Row, Scope
from .question import Question, analyse
from .ranking import DEFAULT, Hit, Term, Weights, best, bm25, idf, rank, rough
from .words import stem

SMALL = 5_000  # documents: up to here every posting is read
BUDGET = 20_000  # postings, read to find candidates; or a tenth of the documents
ROUGH = 1_000  # documents that are scored exactly
LATE = 400  # documents that common terms score
CANDIDATES = 200  # documents that are ranked
DATED = 200  # messages that a day brings in
IN_USE = 4  # documents that make a word one that is in use


def find(text: str, index: Index, limit: int, weights: Weights = DEFAULT) -> list[Hit]:
    """The documents that answer a question best, best first. No text is an error; one without words finds nothing."""
    scope = index.scope()
    if not scope.documents or limit <= 0:
        return []
    question = _analysed(text, index, scope)
    terms, similarity = _terms(question, index, scope), None
    if nearest := index.nearest(question.for_embedder, CANDIDATES):
        similarity = scaled(nearest)
    if not similarity and not any(term.counts for term in terms):
        terms = _mistyped(question, index, scope) or terms
    rows: dict[int, Row] = {}
    scores = _candidates(terms, index, scope, rows, weights)
    _add_rows(question, index, rows, scores, similarity or ())
    hits = rank(question, terms, scores, rows, similarity, weights)[:limit]
    for hit in hits:
        hit.terms = tuple(term.text for term in terms if hit.id in term.counts)
    return hits


def _analysed(text: str, index: Index, scope: Scope) -> Question:
    def in_use(word: str) -> bool:
        term = stem(word)
        return index.frequencies([term]).get(term, 0) >= IN_USE

    def nicknames(names: Collection[str]) -> dict[str, str]:
        called = index.postings([CALLED + name for name in names])
        uses = index.rows({document for documents in called.values() for document in documents})
        found: dict[str, str] = {}
        for mark, documents in called.items():
            callers: dict[str | None, int] = {}
            for document in documents:
                if row := uses.get(document):
                    callers[row.author] = callers.get(row.author, 0) + 1
            if who := authors.called_so(callers, scope.authors):
                found[mark.removeprefix(CALLED)] = who
        return found

    years = range(scope.years[0], scope.years[1] + 1) if scope.years else ()
    return analyse(text, scope.authors, years, in_use, nicknames)


def _terms(question: Question, index: Index, scope: Scope) -> list[Term]:
    wanted = question.terms
    if scope.documents <= SMALL and not scope.filtered:
        postings: Postings = index.postings(wanted) if wanted else {}
        frequencies = {term: len(found) for term, found in postings.items()}
    else:
        frequencies = dict(index.frequencies(wanted)) if wanted else {}
        postings = index.postings(_rare(wanted, frequencies, scope.documents)) if wanted else {}
    terms = [Term(term, idf(scope.documents, frequencies.get(term, 0)), postings.get(term, {})) for term in wanted]
    if scope.items and question.also_in_items:
        named = index.postings(question.also_in_items, items_only=True)
        terms += [Term(term, idf(scope.items, len(found)), found) for term, found in named.items()]
    return terms


def _rare(terms: Iterable[str], frequencies: dict[str, int], documents: int) -> list[str]:
    """The rarest terms, as many as may be read; always one."""
    rare: list[str] = []
    left = max(BUDGET, documents // 10)
    for term in sorted(terms, key=lambda term: frequencies.get(term, 0)):
        left -= frequencies.get(term, 0)
        if rare and left < 0:
            break
        rare.append(term)
    return rare


def _mistyped(question: Question, index: Index, scope: Scope) -> list[Term]:
    meant = [near for term in question.terms for near in typos.near(term, index.vocabulary)]
    found = index.postings(meant) if meant else {}
    return [Term(term, idf(scope.documents, len(documents)), documents) for term, documents in found.items()]


def _candidates(
    terms: list[Term], index: Index, scope: Scope, rows: dict[int, Row], weights: Weights
) -> dict[int, float]:
    """The BM25 scores of the best candidates. Their rows are put into `rows`."""
    mean = scope.words / scope.documents
    wanted = best(rough(terms, weights), ROUGH)
    rows.update(index.rows(wanted))
    scores = bm25(terms, rows, mean, weights)
    if late := [term for term in terms if not term.counts and term.idf and scope.documents > SMALL]:
        chosen = best(scores, LATE)
        counts = index.counts([term.text for term in late], chosen)
        for i, term in enumerate(terms):
            if term.text in counts:
                terms[i] = term._replace(counts=counts[term.text])
        scores = bm25(terms, {document: rows[document] for document in chosen}, mean, weights)
    scores = best(scores, CANDIDATES)
    for document in [document for document in rows if document not in scores]:
        del rows[document]
    return scores


def _add_rows(
    question: Question, index: Index, rows: dict[int, Row], scores: Collection[int], near: Iterable[int]
) -> None:
    """Add the messages around the candidates, those of the question's days, and those near to it."""
    wanted = {other for document in scores if rows[document].session is not None for other in _around(document)}
    wanted.update(near)
    for start, end in question.periods:
        wanted.update(index.dated(start, end, DATED))
    wanted.difference_update(rows)
    if wanted:
        rows.update(index.rows(wanted))


def _around(document: int) -> tuple[int, int, int, int]:
    return document - 2, document - 1, document + 1, document + 2
