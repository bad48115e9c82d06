"""What a mistyped word may have meant: terms that are in use and differ from it by an edit or two."""

from __future__ import annotations

from collections.abc import Callable, Iterable

MAX_MEANT = 3  # terms for a word
LOOK_THROUGH = 50_000  # terms


def near(term: str, vocabulary: Callable[[str, int], Iterable[str]]) -> list[str]:
    """The terms in use that are nearest to one that is not: those with its first letter, or else any."""
    allowed = edits_allowed(term)
    if not allowed:
        return []
    for prefix in (term[0], ""):
        found: dict[str, int] = {}
        for other in vocabulary(prefix, LOOK_THROUGH):
            if abs(len(other) - len(term)) <= allowed and (edits := distance(term, other, allowed)) <= allowed:
                found[other] = edits
        if found:
            fewest = min(found.values())
            return sorted(other for other, edits in found.items() if edits == fewest)[:MAX_MEANT]
    return []


def edits_allowed(term: str) -> int:
    """How many mistakes a word of this length may hold; none where a short word would match by chance."""
    if len(term) < 4 or any(c.isdigit() for c in term):
        return 0
    return 1 if len(term) < 8 else 2


def distance(a: str, b: str, most: int) -> int:
    """How many letters to insert, delete, replace or swap with the next to get from a to b; over `most`, some more."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row = [i]
        for j, right in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return last[-1]
