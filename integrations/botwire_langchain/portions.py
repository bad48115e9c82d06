"""Much at once, in requests that a server takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from botwire.ops import NewMessage, Put

T = TypeVar("T", Put, NewMessage)

COUNT = 500  # entries in one request …
SIZE = 4_000_000  # … and bytes of them: a server takes 16 MiB, if nobody has set it otherwise


def portions(entries: Iterable[T]) -> Iterator[list[T]]:
    """The entries, in their order, so many at a time that a request holds them."""
    portion: list[T] = []
    size = 0
    for entry in entries:
        size += len(bytes(entry.raw))
        if portion and (len(portion) == COUNT or size > SIZE):
            yield portion
            portion, size = [], len(bytes(entry.raw))
        portion.append(entry)
    if portion:
        yield portion
