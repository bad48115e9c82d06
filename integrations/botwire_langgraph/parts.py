"""How what a serializer makes is kept: as one item, and if it is large, as several.

A part fits under botwire's limit of 1 MiB, encrypted too. The item under the key itself comes last, so whoever finds it
finds all its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from botwire import flows, ops, values
from botwire.errors import StoreCorrupt, TooLarge
from botwire.flows import Flow

PART_BYTES = 512 * 1024  # before base64, which adds a third
SENT_TOGETHER = 8 * 1024 * 1024  # bytes of JSON: half of what a server takes in one request by default
PARTS = "p/"

Place = tuple[str, str]
"""A namespace and a key."""


@dataclass
class Typed:
    """Bytes and their type, as a serializer has made them; `parts` more items hold the rest of them."""

    type: str
    data: bytes
    parts: int = 0


def part_key(key: str, number: int) -> str:
    """The key of a part."""
    return f"{PARTS}{key}/{number}"


def owner(key: str) -> str:
    """The key whose part this one is; another one is its own."""
    return key[len(PARTS) :].rpartition("/")[0] if key.startswith(PARTS) else key


def split(namespace: str, key: str, typed: tuple[str, bytes]) -> tuple[Typed, list[ops.Put]]:
    """What the item under a key is to hold, and the puts of the parts that it has no room for."""
    kind, data = typed
    rest = [data[start : start + PART_BYTES] for start in range(PART_BYTES, len(data), PART_BYTES)]
    puts = [put(namespace, part_key(key, number), part) for number, part in enumerate(rest)]
    return Typed(kind, data[:PART_BYTES], len(rest)), puts


def put(namespace: str, key: str, value: Any, *, tags: Sequence[str] = (), if_version: int | None = None) -> ops.Put:
    """A put that keeps no past, and that search never finds."""
    return flows.put_op(namespace, key, value, None, if_version, tags, history=False, index=False)


def raw(value: Any) -> Raw:
    """A value as a put takes it."""
    return Raw(values.encode(value))


def delete(namespace: str, key: str) -> ops.Delete:
    """A delete that leaves nothing."""
    return ops.Delete(namespace, key, history=False)


def saved(writes: Sequence[ops.Op]) -> Flow[None]:
    """Write, in one batch if it is not too large; the last ones last."""
    yield from groups(writes)


def groups(writes: Iterable[ops.Op]) -> Iterator[list[ops.Op]]:
    """Writes in batches that a store takes."""
    group: list[ops.Op] = []
    size = 0
    for op in writes:
        own = memoryview(op.raw).nbytes if isinstance(op, ops.Put) else 0
        if group and (size + own > SENT_TOGETHER or len(group) == ops.MAX_OPS):
            yield group
            group, size = [], 0
        group.append(op)
        size += own
    if group:
        yield group


def read(asked: Sequence[ops.Op]) -> Flow[list[Any]]:
    """Read, in one batch, or if the answers to it would be too large, in several."""
    if not asked:
        return []
    try:
        answers: list[Any] = yield asked
    except TooLarge:
        if len(asked) == 1:
            raise
    else:
        return answers
    half = len(asked) // 2
    return (yield from read(asked[:half])) + (yield from read(asked[half:]))


def every(scan: ops.Scan) -> Flow[list[ops.Item]]:
    """What stands on all pages of a listing."""
    items: list[ops.Item] = []
    asked: ops.Scan | None = scan
    while asked is not None:
        [page] = yield [asked]
        items += page.items
        asked = flows.next_page(asked, page, None)
    return items


def whole(pieces: Mapping[Place, Typed]) -> Flow[dict[Place, tuple[str, bytes]]]:
    """What was split, by namespace and key, put together again."""
    places = [(place, number) for place, typed in pieces.items() for number in range(typed.parts)]
    asked = [ops.Get(namespace, part_key(key, number)) for (namespace, key), number in places]
    found = dict(zip(places, (yield from read(asked)), strict=True))
    return {
        place: (typed.type, b"".join([typed.data, *(_part(place, found[place, each]) for each in range(typed.parts))]))
        for place, typed in pieces.items()
    }


def _part(place: Place, item: ops.Item | None) -> bytes:
    if item is None:
        raise missing(*place)
    part: bytes = item.value_as(bytes)
    return part


def missing(namespace: str, key: str) -> StoreCorrupt:
    """What is raised when something is not there that must be."""
    return StoreCorrupt(
        f"a part of {key!r} in {namespace!r} is missing: somebody has deleted it behind the checkpointer"
    )
