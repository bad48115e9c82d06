"""Items: `/v1/namespaces/{namespace}/items/{key}` and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw, Struct
from starlette.responses import Response

from botwire import flows
from botwire.errors import Conflict, NotFound
from botwire.ops import Delete, Get, History, Item, ItemPage, Op, Put, Revision, Scan, Stamp, Touch

from . import answers, parameters
from .doors import Call, Doors
from .parameters import Param

doors = Doors()
ITEMS: Final = "/v1/namespaces/{namespace}/items"
ITEM: Final = ITEMS + "/{key}"


class NewItem(Struct, frozen=True, forbid_unknown_fields=True):
    """What a key is set to."""

    value: Raw
    """Any JSON."""
    ttl: float | None = None
    """Seconds after which it can no longer be read."""
    tags: tuple[str, ...] = ()
    author: str | None = None
    """Who writes it."""
    history: bool = True
    """`false` keeps nothing of what the key held before."""


class NewExpiry(Struct, frozen=True, forbid_unknown_fields=True):
    """When a key expires."""

    ttl: float | None
    """Seconds from now; `null`: never."""


class Undo(Struct, frozen=True, forbid_unknown_fields=True):
    """An undo."""

    author: str | None = None
    """Who does it."""


def _read_as_of(name: str, text: str) -> dict[str, int]:
    if text.isascii() and text.isdigit() and len(text) < 19:
        return {"as_of": int(text)}
    return {"as_of_time": parameters.moment(name, text)}


AS_OF: Final = Param(
    _read_as_of,
    parameters.TIME,
    "As it was at a version, or at a time such as 2026-01-31T12:00:00Z.",
)


@doors.door(
    "GET",
    ITEMS,
    query={
        "prefix": parameters.PREFIX,
        "where": parameters.WHERE,
        "tag": parameters.TAGS,
        "author": parameters.AUTHOR,
        "since": parameters.SINCE,
        "order": parameters.choice("By key, or by time of change.", "key", "updated"),
        "reverse": parameters.flag("Last first."),
        "values": parameters.flag("`false` leaves the values out (each is `null`).", default=True),
        "subtree": parameters.SUBTREE,
        "limit": parameters.LIMIT,
        "cursor": parameters.CURSOR,
    },
    answers={200: ItemPage},
)
async def list_items(call: Call) -> Response:
    """List items, page by page."""
    return answers.json(await call.ask(Scan(call.namespace, **call.query)))


@doors.door(
    "GET", ITEM, query={"as_of": AS_OF}, answers={200: Item, 304: None}, errors=(404, 410, 412), conditional=True
)
async def get_item(call: Call) -> Response:
    """Read an item, now or as it was."""
    found: Item | None = await call.ask(Get(call.namespace, call.names["key"], **call.query.get("as_of", {})))
    if found is None:
        raise _not_there(call)
    if not call.is_wanted(found.version):
        raise Conflict(f"{_place(call)} is at version {found.version}, not what If-Match says", found.version)
    if call.is_current(found.version):
        return answers.nothing(304, answers.etag(found.version))
    return answers.item(found)


@doors.door(
    "PUT", ITEM, body=NewItem, answers={200: Stamp, 201: Stamp}, errors=(412, 507), conditional=True, writes=True
)
async def put_item(call: Call) -> Response:
    """Set a key. 201: it is new; 200: it has a new value."""
    new = await call.body(NewItem)
    meta = flows.meta_of(new.tags, new.author)
    namespace, key = call.namespace, call.names["key"]
    stamp: Stamp = await _write(
        call, lambda if_version: Put(namespace, key, new.value, new.ttl, if_version, meta, new.history)
    )
    return answers.stamped(stamp, answers.put_status(stamp))


@doors.door(
    "DELETE",
    ITEM,
    query={"history": parameters.flag("`false` destroys the key's past, too.", default=True)},
    answers={204: None},
    errors=(404, 412, 507),
    conditional=True,
    writes=True,
)
async def delete_item(call: Call) -> Response:
    """Delete a key. Its past stays for history and undo."""
    namespace, key = call.namespace, call.names["key"]
    stamp: Stamp | None = await _write(call, lambda if_version: Delete(namespace, key, if_version, **call.query))
    if stamp is None:
        raise _not_there(call)
    return answers.nothing()


@doors.door("PATCH", ITEM, body=NewExpiry, answers={200: Stamp}, errors=(404, 412, 507), conditional=True, writes=True)
async def touch_item(call: Call) -> Response:
    """Have a key expire some seconds from now, or never. The value stays as it is."""
    new = await call.body(NewExpiry)
    namespace, key = call.namespace, call.names["key"]
    stamp: Stamp | None = await _write(call, lambda if_version: Touch(namespace, key, new.ttl, if_version))
    if stamp is None:
        raise _not_there(call)
    return answers.stamped(stamp)


@doors.door("GET", ITEM + "/history", query={"limit": parameters.LIMIT}, answers={200: list[Revision]})
async def item_history(call: Call) -> Response:
    """What a key was, newest first, what it is now included."""
    return answers.json(await call.ask(History(call.namespace, call.names["key"], **call.query)))


@doors.door("POST", ITEM + "/undo", body=Undo, body_optional=True, answers={200: Item}, errors=(404, 507), writes=True)
async def undo_item(call: Call) -> Response:
    """Bring back the value before this one, also after a delete. Again goes further back."""
    asked = await call.body(Undo) if await call.raw_body() else Undo()
    item = await call.run(flows.undo(call.namespace, call.names["key"], asked.author))
    if item is None:
        raise NotFound(f"{_place(call)} has no value before this one that could be brought back")
    return answers.item(item)


async def _write(call: Call, op: Callable[[int | None], Op]) -> Any:
    """Run a write under the condition that the request makes."""
    if not call.must_exist:
        return await call.ask(op(call.if_version))
    while True:  # `If-Match: *` holds for whatever version there is: for the one there was just before
        found: Item | None = await call.ask(Get(call.namespace, call.names["key"]))
        if found is None:
            raise Conflict(f"{_place(call)} does not exist, and If-Match: * wants it to")
        try:
            return await call.ask(op(found.version))
        except Conflict:
            continue


def _place(call: Call) -> str:
    return f"{call.names['key']!r} in {call.namespace!r}"


def _not_there(call: Call) -> NotFound:
    return NotFound(f"no {_place(call)}")
