"""Which authors a question names."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

from . import words
from .stopwords import STOP

MACHINES = frozenset(("assistant", "system", "developer", "tool", "function"))
ROLES = MACHINES | {"user"}  # no names

_SPEAKER = re.compile(r"\b(?:i|my|me|mine|myself)\b", re.IGNORECASE)


@lru_cache(maxsize=64)
def name_parts(authors: tuple[str, ...]) -> dict[str, str]:
    """The words in the authors' names: whose they are."""
    parts: dict[str, str] = {}
    for author in authors:
        if author.lower() not in ROLES:
            for token in words.tokens(author):
                for part in words.parts(token):
                    parts.setdefault(part, author)
    return parts


def named(
    question_words: Iterable[str],
    capitals: Collection[str],
    authors: tuple[str, ...],
    in_use: Callable[[str], bool],
) -> dict[str, str]:
    """The words of a question that name an author: a part of the name, its beginning (Sam for Samantha), or a
    spelling close to it, unless that is a word in use.
    """
    parts = name_parts(authors)
    if not parts:
        return {}
    names: dict[str, str] = {}
    for word in question_words:
        if word in parts:
            names[word] = parts[word]
        elif word in capitals and word not in STOP:
            part = _short_for(word, parts) or _misspelt(word, parts, in_use)
            if part:
                names[word] = parts[part]
    return names


def _short_for(word: str, parts: Collection[str]) -> str | None:
    found = [part for part in parts if len(word) > 1 and part.startswith(word)]
    return found[0] if len(found) == 1 else None


def _misspelt(word: str, parts: Collection[str], in_use: Callable[[str], bool]) -> str | None:
    if len(word) < 5:
        return None
    close = difflib.get_close_matches(word, parts, 1, 0.7)
    return close[0] if close and close[0][0] == word[0] and not in_use(word) else None


def called_so(callers: Mapping[str | None, int], authors: Collection[str]) -> str | None:
    """Whom a name means between two: if at least two messages call somebody so, four in five of them by the same
    author, it is the other one.
    """
    if len(authors) != 2 or not callers:
        return None
    caller, count = Counter(callers).most_common(1)[0]
    if count < 2 or count < 0.8 * sum(callers.values()):
        return None
    return next(author for author in authors if author != caller)


def speaker(text: str, authors: Collection[str]) -> str | None:
    """Who is meant by "I" or "my" in a question: the only author who is no machine."""
    people = [author for author in authors if author.lower() not in MACHINES]
    return people[0] if len(people) == 1 and _SPEAKER.search(text) else None


def without(names: Collection[str], text: str) -> str:
    """A text less these names, and the "'s" after them."""
    if not names:
        return text
    some = "|".join(re.escape(name) for name in names)
    return re.sub(rf"\s*\b(?:{some})\b(?:['’]s\b)?", "", text, flags=re.IGNORECASE).strip()
