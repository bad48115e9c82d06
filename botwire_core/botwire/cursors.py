"""Cursors: where a listing or a feed goes on. Opaque to users, written and read here alone.

A feed cursor of one namespace is `v<version>`; versions never repeat, so it stays true for ever. Over a subtree
it is `s<sequence>`, a place in the store-wide order. A listing's cursor holds the sort key of the last row.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from .errors import InvalidInput


def feed(position: int, *, subtree: bool) -> str:
    """The cursor behind a change: its version, or over a subtree its place in the store-wide order."""
    return f"{'s' if subtree else 'v'}{position}"


def feed_position(cursor: str, *, subtree: bool) -> int:
    """The version or place that a feed cursor names; `""` is the beginning. Raises `InvalidInput`."""
    if cursor == "":
        return 0
    kind, number = cursor[:1], cursor[1:]
    if kind not in "sv" or not number.isascii() or not number.isdigit():
        raise InvalidInput(f"{cursor!r} is no feed cursor: pass the `cursor` of a change, or None for now")
    if (kind == "s") != subtree:
        raise InvalidInput(
            f"the cursor {cursor!r} is one of {'a subtree' if kind == 's' else 'one namespace'}: "
            f"use it with subtree={kind == 's'}"
        )
    return int(number)


def page(*sort_key: Any) -> str:
    """The cursor behind a row with this sort key."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(sort_key)).decode().rstrip("=")


def sort_key(cursor: str, *types: type) -> tuple[Any, ...]:
    """The sort key that a listing's cursor holds. Raises `InvalidInput` for one of another listing."""
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.msgpack.decode(data, type=tuple.__class_getitem__(types))  # type: ignore[no-any-return]
    except (binascii.Error, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"{cursor!r} is no cursor of this listing: pass the one that the last page gave") from error
