"""What is kept of a text when it is indexed: its terms, its length, and a few traits of how it is said."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from . import words

ASKS = 1  # it ends with a question
FIRST_PERSON = 2  # the author speaks of themselves
TELLS_TIME = 4  # it says when
_GREETS = 8  # somebody may be addressed by name; not kept

CALLED = "^"  # before a name by which somebody is addressed
NEW_SESSION = 4 * 3_600 * 1_000_000  # microseconds without a message, after which a new session begins
MAX_EMBEDDED = 8_000  # characters; embedding models read no more of a text than a part of that

_SELF = "i i'm i've i'd i'll im my me mine myself we we're we've our us"
_TIMES = (
    "yesterday today tonight tomorrow ago last next week weeks weekend weekends month months "
    "monday tuesday wednesday thursday friday saturday sunday"
)
_GREETINGS = (
    "hi hii hey heyy hello hiya thanks thank thx bye goodbye dear congrats sorry morning evening afternoon night"
)
_TRAITS = {
    word: trait
    for listed, trait in ((_SELF, FIRST_PERSON), (_TIMES, TELLS_TIME), (_GREETINGS, _GREETS))
    for word in str.split(listed)
}
_YEAR = re.compile(r"(?:19|20)\d\d").fullmatch
_ATTACHMENT = re.compile(r"\s*\[[^\]]*\]\s*$")  # such as "[shares a photo]", after what is said


class Document(NamedTuple):
    """What the index keeps of a text."""

    terms: list[str]
    words: int
    flags: int = 0


def item(key: str, text: str) -> Document:
    """An item: its key in words, and what its value says."""
    return _described(words.tokens(f"{key}\n{text}"))._replace(flags=0)


def message(text: str) -> Document:
    """A message. Beside its terms stand those it calls somebody by, marked."""
    tokens = words.tokens(text)
    found, length, flags = _described(tokens)
    if flags & _GREETS:
        flags ^= _GREETS
        found += _called(tokens)
    if "?" in text and _ATTACHMENT.sub("", text[-500:]).rstrip().endswith("?"):
        flags |= ASKS
    return Document(found, length, flags)


def _described(tokens: list[str]) -> Document:
    found: list[str] = []
    length = flags = 0
    for terms, count, traits in map(_token, tokens):
        found += terms
        length += count
        flags |= traits
    return Document(found, length, flags)


def _called(tokens: list[str]) -> list[str]:
    """The words after a greeting, marked: "Thanks, Kim" calls somebody Kim."""
    others = [word for word in tokens if word != "you"]
    after = [called for greeting, called in pairwise(others) if _token(greeting)[2] & _GREETS]
    return [CALLED + word for called in after for word in words.parts(called)[:1]]


@lru_cache(maxsize=32_768)
def _token(token: str) -> tuple[tuple[str, ...], int, int]:
    """The terms of a token, its length in words, and its traits."""
    plain = token.lower().replace("’", "'")
    flags = _TRAITS.get(plain, TELLS_TIME if _YEAR(plain) else 0)
    terms = words.terms_of(token)
    return terms, 1 if len(terms) == 1 else words.count(token), flags


def session_after(session: int, before: int, at: int) -> int:
    """The number of a message's session, said at `at`, from the session and the time of the message before it."""
    return session + 1 if abs(at - before) >= NEW_SESSION else session


def to_embed(text: str) -> str:
    """The part of a text that an embedder is given."""
    return text[:MAX_EMBEDDED]
