"""Which days a question means, and how well a time fits them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

DAY = 86_400_000_000  # microseconds

_MONTHS: list[str] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY, _YEAR = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?", r"(?P<year>(?:19|20)\d\d)"
_IN = r"(?:in|of|since|until|by|during|early|late|mid|last|this|for)[\s-]+"  # "may" alone is mostly a verb
_DATES = [
    re.compile(rf"\b{pattern}\b", re.IGNORECASE | re.ASCII)
    for pattern in (
        r"(?P<year>(?:19|20)\d\d)-(?P<number>[01]?\d)-(?P<day>[0-3]?\d)",
        rf"(?P<day>[0-3]?\d)[./](?P<number>[0-3]?\d)[./]{_YEAR}",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH},?\s*{_YEAR}",
        rf"{_MONTH}\s*{_DAY},?\s*{_YEAR}",
        rf"{_MONTH},?\s*{_YEAR}",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH}",
        rf"{_MONTH}\s+{_DAY}",
        rf"{_IN}{_MONTH}",
        _YEAR,
    )
]
_MAYBE = re.compile(rf"\d|{_MONTH}", re.IGNORECASE | re.ASCII)


class Period(NamedTuple):
    """A day, month or year (UTC): its first moment and the first one after it, in microseconds since 1970."""

    start: int
    end: int


def named(text: str, years: Sequence[int]) -> tuple[Period, ...]:
    """The days, months and years that a text names. One without a year is meant in each of `years`."""
    if not _MAYBE.search(text):
        return ()
    found: dict[Period, None] = {}

    def take(match: re.Match[str]) -> str:
        periods = list(_periods(match.groupdict(), years))
        found.update(dict.fromkeys(periods))
        return " " if periods else match[0]

    for pattern in _DATES:  # the longest first: what one has read, the next one does not see
        text = pattern.sub(take, text)
    return tuple(found)


def _periods(parts: Mapping[str, str | None], years: Sequence[int]) -> Iterator[Period]:
    month, day = 0, int(parts.get("day") or 0)
    if name := parts.get("month"):
        month = _MONTHS.index(name[:3].lower()) + 1
    elif number := parts.get("number"):
        month = int(number)
        if month > 12 >= day:  # month first
            month, day = day, month
        if not month or not day:
            return
    for year in [int(given)] if (given := parts.get("year")) else years:
        try:
            first = date(year, month or 1, day or 1)
        except ValueError:
            continue
        if day:
            yield _between(first, first + timedelta(1))
        elif month:
            yield _between(first, date(year + month // 12, month % 12 + 1, 1))
        else:
            yield _between(first, date(year + 1, 1, 1))


def _between(first: date, end: date) -> Period:
    epoch = date(1970, 1, 1)
    return Period((first - epoch).days * DAY, (end - epoch).days * DAY)


def fit(at: int, periods: Iterable[Period]) -> float:
    """1 in a period, less in the week after it (people tell of yesterday), a little the day before (they announce)."""
    best = 0.0
    for start, end in periods:
        if start <= at < end:
            return 1.0
        if at >= end:
            days = (at - end) // DAY + 1
            best = max(best, 1 / (1 + days)) if days <= 7 else best
        elif start - at <= DAY:
            best = max(best, 0.3)
    return best
