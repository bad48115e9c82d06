"""Namespaces: `/v1/namespaces` and what concerns one as a whole."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from botwire.errors import InvalidInput
from botwire.ops import (
    Clear,
    Configure,
    Describe,
    Erase,
    Erased,
    NamespaceInfo,
    NamespacePage,
    Namespaces,
    Policy,
    Removed,
)

from . import answers, constraints, parameters
from .doors import Call, Doors, given

doors = Doors()
NAMESPACES: Final = "/v1/namespaces"
NAMESPACE: Final = NAMESPACES + "/{namespace}"
UNDER: Final = {**constraints.NAMESPACE, "minLength": 0, "pattern": f"^$|{constraints.NAMESPACE['pattern']}"}


class Erasure(Struct, frozen=True, forbid_unknown_fields=True):
    """What to destroy: one `key`, one `conversation`, the namespaces below, too (`subtree`), or `{}`: the namespace."""

    key: str | UnsetType = UNSET
    conversation: str | UnsetType = UNSET
    subtree: bool = False


@doors.door(
    "GET",
    NAMESPACES,
    query={
        "under": parameters.text("This one, and those below it; by default all that the API key reaches.", UNDER),
        "limit": parameters.LIMIT,
        "cursor": parameters.CURSOR,
    },
    answers={200: NamespacePage},
)
async def list_namespaces(call: Call) -> Response:
    """List namespaces, page by page."""
    under = call.query.pop("under", call.principal.scope)
    return answers.json(await call.ask(Namespaces(under, **call.query)))


@doors.door("GET", NAMESPACE, answers={200: NamespaceInfo})
async def get_namespace(call: Call) -> Response:
    """How much a namespace holds, and its policy. One that was never written to has version 0."""
    return answers.json(await call.ask(Describe(call.namespace)))


@doors.door("PATCH", NAMESPACE, body=Policy, answers={200: NamespaceInfo}, writes=True)
async def configure_namespace(call: Call) -> Response:
    """Set what a namespace keeps, and how much. What is left out, or `null`, stays as it is."""
    return answers.json(await call.ask(Configure(call.namespace, await call.body(Policy))))


@doors.door("DELETE", NAMESPACE, answers={200: Removed}, errors=(507,), writes=True)
async def clear_namespace(call: Call) -> Response:
    """Delete all items and conversations. The items' past stays: `undo` brings single ones back."""
    return answers.json(await call.ask(Clear(call.namespace)))


@doors.door("POST", NAMESPACE + "/erase", body=Erasure, answers={200: Erased}, writes=True)
async def erase(call: Call) -> Response:
    """Destroy a namespace, or one key or conversation of it, with all its past, so that no byte is left."""
    if not await call.raw_body():
        raise InvalidInput('say what to erase: {"key": …}, {"conversation": …}, or {} for the whole namespace')
    asked = await call.body(Erasure)
    op = Erase(call.namespace, given(asked.key), given(asked.conversation), asked.subtree)
    return answers.json(await call.ask(op))
