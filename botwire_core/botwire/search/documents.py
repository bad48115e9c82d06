"""What is kept of a text when it is indexed: its terms, its length, and a few traits of how it is said."""

from __future__ import annotations

import re
from typing import NamedTuple

from . import words

ASKS = 1  # it ends with a question
FIRST_PERSON = 2  # the author speaks of themselves
TELLS_TIME = 4  # it says when

CALLED = "^"  # before the term of a name by which somebody is addressed
NEW_SESSION = 3_600 * 1_000_000  # microseconds without a message, after which a new session begins
MAX_EMBEDDED = 8_000  # characters; embedding models read no more of a text than a part of that

_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|i'd|i'll|im|my|me|mine|myself|we|we're|we've|our|us)\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|ago|last|next|week(?:end)?s?|months?|(?:mon|tues|wednes|thurs|fri|satur|sun)day|"
    r"(?:19|20)\d\d)\b",
    re.IGNORECASE,
)
_ATTACHMENT = re.compile(r"\s*\[[^\]]*\]\s*$")  # such as "[shares a photo]", after what is said
_GREETINGS = (
    r"hi+|hey+|hello|hiya|thanks|thank you|thx|bye|goodbye|dear|congrats|congratulations|sorry|"
    r"(?:good )?(?:morning|evening|afternoon|night)"
)
_CALLS = re.compile(rf"\b(?:{_GREETINGS}),?\s+([^\W\d_]+)\b|[,.!?]\s+([^\W\d_]+)\s*[,!?.]", re.IGNORECASE)


class Document(NamedTuple):
    """What the index keeps of a text."""

    terms: list[str]
    words: int
    flags: int = 0


def item(key: str, text: str) -> Document:
    """An item: its key in words, and what its value says."""
    whole = f"{key}\n{text}"
    return Document(words.terms(whole), length(whole))


def message(text: str) -> Document:
    """A message. Beside its terms stand those it calls somebody by, marked."""
    plain = text.replace("’", "'")
    flags = 0
    if _ATTACHMENT.sub("", plain[-500:]).rstrip().endswith("?"):
        flags |= ASKS
    if _FIRST_PERSON.search(plain):
        flags |= FIRST_PERSON
    if _TIME.search(plain):
        flags |= TELLS_TIME
    called = {words.fold(first or second) for first, second in _CALLS.findall(plain[:1000])}
    marks = [CALLED + name for name in sorted(called)]
    return Document(words.terms(text) + marks, length(text), flags)


def length(text: str) -> int:
    """How many words a text has."""
    return sum(words.count(token[0]) for token in words.tokens(text))


def session_after(session: int, before: int, at: int) -> int:
    """The number of a message's session, said at `at`, from the session and the time of the message before it."""
    return session + 1 if abs(at - before) >= NEW_SESSION else session


def to_embed(text: str) -> str:
    """The part of a text that an embedder is given."""
    return text[:MAX_EMBEDDED]
