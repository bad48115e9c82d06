"""From a question to its hits: what is read from an index, in which order, and how much of it.

In a small scope the postings of every term are read. In a large one the rare terms find the candidates, and common
ones only score them: reading the postings of common words is what makes full-text search slow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from . import authors, ranking, typos
from .documents import CALLED
from .fusion import scaled
from .index import Index, Postings, Row, Scope
from .question import Question, analyse
from .ranking import Hit, Term, Weights, best, bm25, idf, rank, rough
from .words import stem

SMALL = 5_000  # documents: up to here every posting is read
BUDGET = 10_000  # postings, read to find candidates; or a tenth of the documents
ROUGH = 1_000  # documents that are scored exactly
LATE = 400  # documents that common terms score
CANDIDATES = 200  # documents that are ranked
DATED = 200  # messages that a day brings in
IN_USE = 4  # documents that make a word one that is in use


def find(text: str, index: Index, limit: int, weights: Weights | None = None) -> list[Hit]:
    """The documents that answer a question best, best first. No text is an error; one without words finds nothing."""
    weights = weights or ranking.DEFAULT
    scope = index.scope()
    if not scope.documents or limit <= 0:
        return []
    question = _analysed(text, index, scope)
    terms, late = _terms(question, index, scope)
    nearest = index.nearest(question.for_embedder, CANDIDATES)
    similarity = scaled(nearest, scope.documents) if nearest else {}
    if not similarity and not any(term.counts for term in terms):
        terms = _mistyped(question, index, scope) or terms
    scores, rows = _scored(terms, late, index, scope, max(ROUGH, limit), weights)
    candidates = best(scores, CANDIDATES)
    around = _around(candidates, rows, question, index) | similarity.keys()
    rows = {**{document: rows[document] for document in candidates}, **index.rows(around - candidates.keys())}
    hits = rank(question, terms, candidates, rows, similarity, weights)
    if len(hits) < limit:
        hits += _tail(scores, hits)
    for hit in hits[:limit]:
        hit.terms = tuple(term.text for term in terms if hit.id in term.counts)
    return hits[:limit]


def for_embedder(text: str, index: Index) -> str:
    """What of a question is to be embedded: `Index.nearest` is asked with it."""
    return _analysed(text, index, index.scope()).for_embedder


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


def _terms(question: Question, index: Index, scope: Scope) -> tuple[list[Term], list[str]]:
    """The terms with what of their postings is read, and those that are left for later because they are common."""
    wanted, late = question.terms, list[str]()
    if scope.documents <= SMALL and not scope.filtered:
        postings: Postings = index.postings(wanted)
        frequencies: Mapping[str, int] = {term: len(found) for term, found in postings.items()}
    else:
        frequencies = index.frequencies(wanted)
        rare, late = _divided(frequencies, max(BUDGET, scope.documents // 10))
        postings = index.postings(rare)
    terms = [Term(term, idf(scope.documents, frequencies.get(term, 0)), postings.get(term, {})) for term in wanted]
    if scope.items and question.also_in_items:
        named = index.postings(question.also_in_items, items_only=True)
        terms += [Term(term, idf(scope.items, len(found)), found) for term, found in named.items()]
    return terms, late


def _divided(frequencies: Mapping[str, int], budget: int) -> tuple[list[str], list[str]]:
    """The rarest terms, as many as may be read but always one; and the others."""
    known = sorted((term for term, frequency in frequencies.items() if frequency), key=lambda term: frequencies[term])
    read = 0
    for place, term in enumerate(known):
        read += frequencies[term]
        if place and read > budget:
            return known[:place], known[place:]
    return known, []


def _mistyped(question: Question, index: Index, scope: Scope) -> list[Term]:
    meant = [near for term in question.terms for near in typos.near(term, index.vocabulary)]
    found = index.postings(meant) if meant else {}
    return [Term(term, idf(scope.documents, len(documents)), documents) for term, documents in found.items()]


def _scored(
    terms: list[Term], late: Sequence[str], index: Index, scope: Scope, most: int, weights: Weights
) -> tuple[dict[int, float], dict[int, Row]]:
    """The BM25 scores of the best `most` documents, and their rows. `terms` learn the counts of the late ones."""
    mean = scope.words / scope.documents
    rows = index.rows(best(rough(terms, weights), most))
    scores = bm25(terms, rows, mean, weights)
    if late:
        chosen = best(scores, LATE)
        counts = index.counts(late, chosen)
        for place, term in enumerate(terms):
            if term.text in counts:
                terms[place] = term._replace(counts=counts[term.text])
        scores |= bm25(terms, {document: rows[document] for document in chosen}, mean, weights)
    return scores, {document: rows[document] for document in scores}


def _tail(scores: Mapping[int, float], hits: Sequence[Hit]) -> list[Hit]:
    """What matched, too, but is none of the candidates: behind them, in the order of BM25."""
    ranked = {hit.id for hit in hits}
    rest = sorted(((score, document) for document, score in scores.items() if document not in ranked), reverse=True)
    if not rest:
        return []
    scale = min((hits[-1].score if hits else 1.0) / rest[0][0], 1.0)
    return [Hit(document, score * scale, score) for score, document in rest]


def _around(candidates: Collection[int], rows: Mapping[int, Row], question: Question, index: Index) -> set[int]:
    """The messages within two of the candidates, and those of the question's days."""
    found: set[int] = set()
    for document in candidates:
        if rows[document].session is not None:
            found.update((document - 2, document - 1, document + 1, document + 2))
    for start, end in question.periods:
        found.update(index.dated(start, end, DATED))
    return found
