"""What the server says of itself: `/` and `/openapi.json`."""

from __future__ import annotations

from msgspec import Struct
from starlette.responses import Response

from botwire import __version__

from . import answers
from .doors import Call, Doors
from .items import ITEM

doors = Doors()


class Greeting(Struct, frozen=True):
    """What answers here, and where to go on."""

    name: str
    version: str
    openapi: str
    """The description of all that there is, in OpenAPI."""
    namespaces: str
    health: str
    items: str
    """Where a value is read and written; names are percent-encoded."""


@doors.door("GET", "/", answers={200: Greeting}, public=True)
async def home(call: Call) -> Response:
    """What answers here, and where to go on."""
    root = call.request.scope.get("root_path", "").rstrip("/")
    return answers.json(
        Greeting(
            "botwire",
            __version__,
            f"{root}/openapi.json",
            f"{root}/v1/namespaces",
            f"{root}/healthz",
            f"{root}{ITEM}",
        )
    )


@doors.door("GET", "/openapi.json", answers={200: dict}, public=True)
async def openapi(call: Call) -> Response:
    """The description of all that there is, in OpenAPI 3.1."""
    root = call.request.scope.get("root_path", "").rstrip("/")
    servers = {"servers": [{"url": root}]} if root else {}
    return answers.json(call.request.app.openapi() | servers)
