"""The part of a text that shows why it was found, with what matched marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

from . import words

LOOK_THROUGH = 200_000  # characters
ELLIPSIS = "…"

_SPACES = re.compile(r"\s+")
_LONGEST_WORD = 20  # characters that are added to end at a word's end

Span = tuple[int, int]


def snippet(text: str, terms: Collection[str], width: int = 160, marks: tuple[str, str] = ("«", "»")) -> str:
    """About `width` characters of a text around the most of the terms, those marked; its beginning if there are none.

    >>> snippet("She went to the park with her dogs.", {"dog", "park"}, width=20)
    '…«park» with her «dogs».'
    """
    matches = list(_matches(text[:LOOK_THROUGH], frozenset(terms)))
    spans = [span for span, _ in matches]
    start, end = _window(matches, width, len(text))
    start, end = _to_word(text, start, end)
    pieces: list[str] = []
    at = start
    for first, last in spans:
        if start <= first and last <= end:
            pieces += (text[at:first], marks[0], text[first:last], marks[1])
            at = last
    pieces.append(text[at:end])
    shown = _SPACES.sub(" ", "".join(pieces)).strip()
    return (ELLIPSIS if start > 0 else "") + shown + (ELLIPSIS if end < len(text) else "")


def _matches(text: str, terms: frozenset[str]) -> Iterator[tuple[Span, frozenset[str]]]:
    """Where terms stand in a text, in order, each place with the terms that match there."""
    for place in words.places(text) if terms else ():
        if found := terms.intersection(words.terms_of(place[0])):
            inner = list(_inside(place[0], found)) or [(0, len(place[0]))]
            for first, last in inner:
                yield (place.start() + first, place.start() + last), found


def _inside(token: str, found: frozenset[str]) -> Iterator[Span]:
    """The parts of a run without spaces that match; none for a word of a script with spaces."""
    if not words.is_run(token):
        return
    spans = sorted(match.span() for term in found for match in re.finditer(re.escape(term), token.casefold()))
    merged: list[list[int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    yield from ((first, last) for first, last in merged)


def _window(matches: list[tuple[Span, frozenset[str]]], width: int, length: int) -> Span:
    """The stretch of a text with the most different terms in it, and of those with the most places; the first such."""
    if not matches or length <= width:
        return 0, min(width, length) if length > width else length
    best, chosen = (0, 0), (0, 0)
    held: Counter[str] = Counter()
    left = 0
    for right, ((_, last), terms) in enumerate(matches):
        held.update(terms)
        while left < right and last - matches[left][0][0] > width:
            held.subtract(matches[left][1])
            left += 1
        worth = (sum(count > 0 for count in held.values()), right - left + 1)
        if worth > best:
            best, chosen = worth, (left, right)
    first, last = matches[chosen[0]][0][0], matches[chosen[1]][0][1]
    start = max(0, min(first - (width - (last - first)) // 2, length - width))
    return start, min(length, max(start + width, last))


def _to_word(text: str, start: int, end: int) -> Span:
    """The stretch without the halves of words at its ends."""
    if start > 0 and not text[start - 1].isspace():
        space = _SPACES.search(text, start, min(end, start + _LONGEST_WORD))
        start = space.end() if space else start
    if end < len(text) and not text[end].isspace():
        cut = text.rfind(" ", max(start, end - _LONGEST_WORD), end)
        end = cut if cut > start else end
    return start, end
