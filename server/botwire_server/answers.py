"""What the doors answer when all went well, as pure functions: the hot path gives the same bytes."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from botwire.ops import Item, Stamp

JSON = "application/json"
_encode = msgspec.json.Encoder().encode


def json(result: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A result as JSON; values stand in it as the JSON that they are."""
    return Response(_encode(result), status, headers, JSON)


def nothing(status: int = 204, headers: dict[str, str] | None = None) -> Response:
    """An answer without a body."""
    return Response(None, status, headers)


def item(found: Item, status: int = 200) -> Response:
    """An item with its ETag."""
    return json(found, status, etag(found.version))


def stamped(stamp: Stamp, status: int = 200) -> Response:
    """What a write has left, with the new ETag."""
    return json(stamp, status, etag(stamp.version))


def etag(version: int) -> dict[str, str]:
    """The header that names a version."""
    return {"ETag": f'"{version}"'}


def put_status(stamp: Stamp) -> int:
    """201 if a put has made something, 200 if it has replaced something.

    What is replaced in the very microsecond in which it was made counts as made.
    """
    return 201 if stamp.created == stamp.updated else 200
