"""The published wire, as the client of botwire 0.2 speaks it: `/memory/{namespace}` and `/memory/{namespace}/{key}`.

That client sends every value as a string, and what is no string as JSON text. So a string that begins with `[` or `{`
and is JSON is stored as that JSON: everyone else reads a list or an object, and the old client gets what it always got.
Scalars travelled as the strings "5", "true" and "null" and came back as these; they stay strings, for nothing tells
them from strings that were meant as such. In a path that client leaves a lone `%` as it is.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct
from starlette.responses import Response

from botwire import flows, values
from botwire.errors import InvalidInput, NotFound
from botwire.ops import Delete, Put, Stamp, Value

from . import answers
from .doors import Call, Doors

doors = Doors()
MEMORY: Final = "/memory/{namespace}"
ENTRY: Final = MEMORY + "/{key:path}"


class PublishedValue(Struct, frozen=True, forbid_unknown_fields=True):
    """What a key is set to."""

    value: Raw
    """A string; one that begins with `[` or `{` and is JSON is stored as that. Other JSON is stored as it is."""


class PublishedEntry(Struct, frozen=True):
    """A key and its value."""

    namespace: str
    key: str
    value: Raw


class Stored(Struct, frozen=True):
    """What was stored."""

    namespace: str
    key: str
    stored: bool
    bytes: int


class Deleted(Struct, frozen=True):
    """What was deleted."""

    namespace: str
    key: str
    deleted: bool


class Keys(Struct, frozen=True):
    """All keys of a namespace."""

    namespace: str
    count: int
    keys: list[str]


@doors.door("GET", MEMORY, lone_percent=True, answers={200: Keys})
async def published_keys(call: Call) -> Response:
    """All keys of a namespace, sorted."""
    keys = await call.run(flows.all_keys(call.namespace, ""))
    return answers.json(Keys(call.namespace, len(keys), keys))


@doors.door("GET", ENTRY, lone_percent=True, answers={200: PublishedEntry}, errors=(404,))
async def published_get(call: Call) -> Response:
    """Read a value."""
    found: Raw | None = await call.ask(Value(call.namespace, call.names["key"]))
    if found is None:
        raise _not_there(call)
    return answers.json(PublishedEntry(call.namespace, call.names["key"], found))


@doors.door("PUT", ENTRY, lone_percent=True, body=PublishedValue, answers={200: Stored}, errors=(507,), writes=True)
async def published_set(call: Call) -> Response:
    """Set a value."""
    raw = meant((await call.body(PublishedValue)).value)
    await call.ask(Put(call.namespace, call.names["key"], raw))
    return answers.json(Stored(call.namespace, call.names["key"], stored=True, bytes=len(bytes(raw))))


@doors.door("DELETE", ENTRY, lone_percent=True, answers={200: Deleted}, errors=(404,), writes=True)
async def published_delete(call: Call) -> Response:
    """Delete a key."""
    stamp: Stamp | None = await call.ask(Delete(call.namespace, call.names["key"]))
    if stamp is None:
        raise _not_there(call)
    return answers.json(Deleted(call.namespace, call.names["key"], deleted=True))


def meant(raw: Raw) -> Raw:
    """What a value stands for: the JSON in a string that holds a list or an object, else the value itself."""
    raw = values.from_outside(raw)
    text = values.decode(raw)
    if not isinstance(text, str) or not text.startswith(("[", "{")):
        return raw
    try:
        return values.from_outside(text.encode("utf-8", "surrogatepass"))
    except InvalidInput:  # no JSON that botwire keeps: then it is a text, as it was on the old server
        return raw


def _not_there(call: Call) -> NotFound:
    return NotFound(f"no {call.names['key']!r} in {call.namespace!r}")
