"""What a question asks for: its terms, the authors and days it names, and whether it asks when."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from . import authors as people
from . import dates, words
from .dates import Period
from .stopwords import STOP

MAX_TERMS = 64  # a longer question is asked by its first terms

_ON_TIME = re.compile(r"\b(?:when|how long|(?:what|which) (?:date|day|month|year|time))\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, taken apart."""

    terms: tuple[str, ...]
    """What is looked for in every document."""
    also_in_items: tuple[str, ...] = ()
    """The names of authors: who wrote a message stands beside its text; in an item a name is text."""
    authors: frozenset[str] = frozenset()
    periods: tuple[Period, ...] = ()
    on_time: bool = False
    for_embedder: str = ""
    """The question less the names of authors, for the author's weight says that better."""


def analyse(
    text: str,
    authors: tuple[str, ...] = (),
    years: Iterable[int] = (),
    in_use: Callable[[str], bool] = lambda word: False,
    nicknames: Callable[[Collection[str]], dict[str, str]] = lambda names: {},
) -> Question:
    """Take a question apart. `in_use` says whether a word is in the documents, and `nicknames` whom the authors call
    by some names.
    """
    periods = dates.named(text, tuple(years))
    tokens = words.tokens(text)
    found = {token: words.parts(token) for token in tokens}
    spoken = list(dict.fromkeys(word for parts in found.values() for word in parts))
    capitals = {word for token, parts in found.items() if token[0].isupper() for word in parts}
    names = people.named(spoken, capitals, authors, in_use)
    if unknown := [word for word in capitals if word not in names and word not in STOP] if len(authors) == 2 else []:
        names |= nicknames(unknown)
    named = frozenset(names.values())
    if not named and (speaker := people.speaker(text, authors)):
        named = frozenset((speaker,))
    kept = [word for word in spoken if word not in STOP and word not in names]
    kept = kept or [word for word in spoken if word not in STOP] or spoken
    terms = dict.fromkeys(term for word in kept for term in words.asked(word))
    terms |= dict.fromkeys(whole for token in tokens if (whole := words.whole_of(token)))
    said = dict.fromkeys(term for word in spoken if word in names for term in words.asked(word))
    return Question(
        terms=tuple(terms)[:MAX_TERMS],
        also_in_items=tuple(term for term in said if term not in terms)[:MAX_TERMS],
        authors=named,
        periods=periods,
        on_time=bool(_ON_TIME.search(text)),
        for_embedder=people.without(names, text) or text,
    )
