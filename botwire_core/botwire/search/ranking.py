"""Ranking without a model: pure functions over what an index handed out.

An item scores plain BM25 (times a constant, to stand beside messages). A message also gets what the messages around
it score, and the best of its session, for what it answers is often said there; it counts more if it says more of
what is asked, was said on a day that the question names, or by the author it names. Each factor's measured worth
stands in docs/search.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from .dates import fit
from .documents import ASKS, FIRST_PERSON, TELLS_TIME
from .fusion import fuse
from .index import Row
from .question import Question


@dataclass(frozen=True, slots=True)
class Weights:
    """One setting for all data; each is rounded, and the quality flat around it."""

    k1: float = 1.2
    b: float = 0.75
    item: float = 2.0
    """An item, beside messages."""
    beside: float = 0.35
    """Of the score of the messages before and after."""
    near: float = 0.1
    """Of the score of the messages two away."""
    answer: float = 0.5
    """More of the message before, where that one asks."""
    self_contained: float = 60.0
    """A message of so many words takes half from those around it."""
    coverage: float = 0.5
    """Power of the share of the question's weight that is found in and around a message."""
    date: float = 1.0
    """A day that the question names counts like so many average words, beside those it is written in."""
    session: float = 0.3
    """Of the mean of a session's three best scores."""
    author: float = 3.0
    """The one author that the question names."""
    first_person: float = 1.35
    """A message whose author speaks of themselves."""
    time: float = 1.3
    """A message that says when, for a question on time."""
    vector: float = 0.5
    """The embedder's share, where there is one."""
    vector_power: float = 1.5
    vector_answer: float = 0.3
    """Of the embedder's score of the message before, where that one asks."""

    def less_if_long(self, words: int) -> float:
        """How much of what its neighbours give a message of this length takes."""
        return self.self_contained / (self.self_contained + words)


DEFAULT = Weights()

_SCORE = attrgetter("score", "id")


class Term(NamedTuple):
    """A term of the question: its weight, and the documents that hold it, with how often."""

    text: str
    idf: float
    counts: Mapping[int, int]


@dataclass(slots=True)
class Hit:
    """A document found. The parts of its score:
    ((bm25 + neighbours + date) * coverage, fused with the vector's, + session) * prior.
    """

    id: int
    score: float
    bm25: float = 0.0
    neighbours: float = 0.0
    date: float = 0.0
    coverage: float = 1.0
    vector: float = 0.0
    session: float = 0.0
    prior: float = 1.0
    terms: tuple[str, ...] = field(default=())
    """The terms of the question that are in it."""

    def parts(self) -> dict[str, float]:
        """How the score came about."""
        names = ("bm25", "neighbours", "date", "coverage", "vector", "session", "prior")
        return {name: round(getattr(self, name), 4) for name in names}


def idf(documents: int, frequency: int) -> float:
    """The weight of a term that is in so many of the documents."""
    return math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))


def rough(terms: Iterable[Term], weights: Weights = DEFAULT) -> dict[int, float]:
    """BM25 without the lengths of the documents: enough to leave out the hopeless ones."""
    scores: dict[int, float] = {}
    known = scores.get
    for term in terms:
        top, k1 = term.idf * (weights.k1 + 1), weights.k1
        gains = {count: top * count / (count + k1) for count in set(term.counts.values())}
        if not scores:
            scores.update((document, gains[count]) for document, count in term.counts.items())
            continue
        for document, count in term.counts.items():
            scores[document] = known(document, 0.0) + gains[count]
    return scores


def bm25(
    terms: Iterable[Term], rows: Mapping[int, Row], mean_words: float, weights: Weights = DEFAULT
) -> dict[int, float]:
    """The BM25 scores of those rows that hold one of the terms."""
    k1 = weights.k1
    fixed, slope = k1 * (1 - weights.b), k1 * weights.b / max(mean_words, 1.0)
    scores: dict[int, float] = {}
    for term in terms:
        top, counts = term.idf * (k1 + 1), term.counts
        for document in counts if len(counts) < len(rows) else rows:
            row, count = rows.get(document), counts.get(document)
            if row and count:
                gain = top * count / (count + fixed + slope * row.words)
                scores[document] = scores.get(document, 0.0) + gain
    return scores


def best(scores: Mapping[int, float], limit: int) -> dict[int, float]:
    """The highest scores; of equal ones those of the highest ids."""
    if len(scores) <= limit:
        return dict(scores)
    least = sorted(scores.values(), reverse=True)[limit - 1]  # faster than a heap of pairs
    found = {document: score for document, score in scores.items() if score > least}
    equal = (document for document, score in scores.items() if score == least)
    return found | dict.fromkeys(heapq.nlargest(limit - len(found), equal), least)


def rank(
    question: Question,
    terms: Sequence[Term],
    scores: Mapping[int, float],
    rows: Mapping[int, Row],
    similarity: Mapping[int, float],
    weights: Weights = DEFAULT,
) -> list[Hit]:
    """Order documents, best first.

    `scores`: the BM25 score of each candidate; `rows`: the candidates, the messages within two of them, and those of
    the question's days; `similarity`: see `fusion`.
    """
    held = masks(terms, scores)
    reach = spread(scores, held, rows, weights)
    share = shares(terms, question, weights)
    day, worth = 1 << len(terms), day_worth(terms, weights)
    half = weights.self_contained
    hits: list[Hit] = []
    for document, row in rows.items():
        own = scores.get(document, 0.0)
        if row.session is None:
            if own or document in similarity:
                hits.append(Hit(document, own, own))
            continue
        around, mask = reach.get(document, (0.0, 0))
        around *= half / (half + row.words)
        dated = 0.0
        if question.periods and row.at is not None and (near := fit(row.at, question.periods)):
            dated = worth * near
            mask |= day
        if mask or document in similarity:
            covered = share(mask)
            hits.append(Hit(document, (own + around + dated) * covered, own, around, dated, covered))
    if similarity:
        fuse(hits, similarity, rows, weights)
    add_sessions(hits, rows, weights)
    prior = priors(question, weights)
    for hit in hits:
        row = rows[hit.id]
        hit.prior = weights.item if row.session is None else prior(row.author, row.flags)
        hit.score *= hit.prior
    hits.sort(key=_SCORE, reverse=True)
    return hits


def masks(terms: Sequence[Term], candidates: Mapping[int, float]) -> dict[int, int]:
    """Of each candidate the terms in it, as bits."""
    held = dict.fromkeys(candidates, 0)
    for number, term in enumerate(terms):
        bit = 1 << number
        for document in term.counts:
            if document in held:
                held[document] |= bit
    return held


def day_worth(terms: Sequence[Term], weights: Weights) -> float:
    """What a message gets for being of a day that the question names."""
    return weights.date * (sum(term.idf for term in terms) / len(terms) if terms else 3.0)


def shares(terms: Sequence[Term], question: Question, weights: Weights) -> Callable[[int], float]:
    """The factor for the share of the question's weight that a set of terms (bits) has; its days count as a term."""
    idfs = [term.idf for term in terms]
    if question.periods:
        idfs.append(sum(idfs) / len(idfs) if idfs else 3.0)
    total = sum(idfs) or 1.0

    @cache
    def share(mask: int) -> float:
        part = sum(idf for i, idf in enumerate(idfs) if mask >> i & 1) / total
        return float(part**weights.coverage)

    return share


def spread(
    scores: Mapping[int, float], held: Mapping[int, int], rows: Mapping[int, Row], weights: Weights
) -> dict[int, tuple[float, int]]:
    """What candidates give to the messages around them in their session: a part of their score, most to the one
    after a question, and their terms. Each candidate has its own terms, too.
    """
    reach = {document: (0.0, mask) for document, mask in held.items()}
    nothing = (0.0, 0)
    for document, score in scores.items():
        row = rows[document]
        session = row.session
        if session is None:
            continue
        mask = held[document]
        far, beside = weights.near * score, weights.beside * score
        after = beside + weights.answer * score if row.flags & ASKS else beside
        for other, gain in ((document - 2, far), (document - 1, beside), (document + 1, after), (document + 2, far)):
            neighbour = rows.get(other)
            if neighbour is not None and neighbour.session == session:
                had, terms = reach.get(other, nothing)
                reach[other] = (had + gain, terms | mask)
    return reach


def add_sessions(hits: Iterable[Hit], rows: Mapping[int, Row], weights: Weights) -> None:
    """To each message a part of the mean of the three best scores of its session."""
    sessions: dict[int, list[Hit]] = {}
    for hit in hits:
        if (session := rows[hit.id].session) is not None:
            sessions.setdefault(session, []).append(hit)
    for found in sessions.values():
        gain = weights.session * sum(sorted(hit.score for hit in found)[-3:]) / 3
        for hit in found:
            if hit.score > 0:
                hit.session = gain
                hit.score += gain


def priors(question: Question, weights: Weights) -> Callable[[str | None, int], float]:
    """The factor for who is speaking, and of what."""
    named = question.authors if len(question.authors) == 1 else frozenset[str]()

    @cache
    def prior(author: str | None, flags: int) -> float:
        factor = weights.author if author in named else 1.0
        if flags & FIRST_PERSON:
            factor *= weights.first_person
        if question.on_time and flags & TELLS_TIME:
            factor *= weights.time
        return factor

    return prior
