"""What the search asks of a store's index: a few reads in one scope, the same for every engine.

An index is opened for one question, in one scope (a namespace, or a subtree), with the question's filters. It never
hands out a document that does not pass them. Its statistics are those of the scope alone, filters aside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class Scope(NamedTuple):
    """Where is searched, counted."""

    documents: int
    words: int
    """Of all documents together."""
    items: int = 0
    """How many of the documents are items."""
    authors: tuple[str, ...] = ()
    """Of the messages; the most frequent if there are very many."""
    years: tuple[int, int] | None = None
    """The first and the last year of the messages."""
    filtered: bool = False
    """Whether the filters may hold back documents."""


class Row(NamedTuple):
    """A document without its text."""

    id: int
    """The messages of a conversation have consecutive ids, in their order."""
    words: int
    session: int | None = None
    """Of a message: a number of its own for each session of each conversation. An item has none."""
    author: str | None = None
    at: int | None = None
    """Microseconds since 1970."""
    flags: int = 0
    """See `documents`."""


class Nearest(NamedTuple):
    """The documents nearest to a question by their embeddings."""

    cosines: Mapping[int, float]
    mean: float
    """The mean cosine of the scope."""


Postings = Mapping[str, Mapping[int, int]]
"""Of each term the documents that hold it, and how often. A term that is nowhere may be left out."""


class Index(Protocol):
    """What an engine answers."""

    def scope(self) -> Scope:
        """The counts of the scope."""
        ...

    def frequencies(self, terms: Sequence[str]) -> Mapping[str, int]:
        """In how many documents of the scope each term is; an estimate will do for common ones."""
        ...

    def postings(self, terms: Sequence[str], *, items_only: bool = False) -> Postings:
        """The documents that hold each of the terms."""
        ...

    def counts(self, terms: Sequence[str], documents: Collection[int]) -> Postings:
        """The same of these documents alone: how common words are scored without reading all their postings."""
        ...

    def rows(self, documents: Collection[int]) -> Mapping[int, Row]:
        """Those of the documents that are there."""
        ...

    def dated(self, first: int, last: int, limit: int) -> Collection[int]:
        """Messages said from `first` until before `last` (microseconds), at most `limit`."""
        ...

    def vocabulary(self, prefix: str, limit: int) -> Iterable[str]:
        """Terms of the scope that begin with the prefix."""
        ...

    def nearest(self, text: str, limit: int) -> Nearest | None:
        """The documents nearest to the text by their embeddings; `None` where there are none."""
        ...
