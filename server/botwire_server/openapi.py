"""The OpenAPI description, made from the doors and from the structs that travel: nothing in it is written twice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from botwire import __version__, wire

from .constraints import KEY, NAMESPACE, REQUEST_ID, Schema
from .doors import Door, Media
from .parameters import Param
from .schemas import kinds_of, schemas_of

PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}

ABOUT: Final = """\
Memory for AI agents: namespaces of items and conversations, with versions, history and a feed of changes.

* **Names in paths** are percent-encoded, `/` in them as `%2F`: `/v1/namespaces/acme%2Fuser-42/items/a%2Fb`. A name
  takes 1 to 512 bytes in UTF-8 and holds no control characters; in a namespace `/` separates levels.
* **Times** are integers, microseconds since 1970 (UTC).
* **Versions** grow with every change in a namespace. An item's version is its `ETag`.
* **Errors** are problems (RFC 9457); their `type` is one of botwire's error names.
* **Writes** that carry an `Idempotency-Key` can be repeated within 24 hours, and are applied once.
* Whatever answers `GET` answers `HEAD`, too. Unknown parameters and fields are refused.
* Every answer has an `X-Request-Id`; send your own, and the server's log will know the request by it.
"""

_ANY_REQUEST: Final = (400, 401, 403, 413, 429, 500, 503)
_WITH_BODY: Final = (408, 415)
_WRITES: Final = (409, 422)


def document(doors: Sequence[Door]) -> dict[str, Any]:
    """The description of these doors, and of those that every server has."""
    schemas, components = schemas_of(doors)
    paths: dict[str, dict[str, Any]] = {}
    for door in doors:
        path = re.sub(r":path}", "}", door.path)
        paths.setdefault(path, {})[door.method.lower()] = _operation(door, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "botwire", "version": __version__, "description": ABOUT, "license": _LICENSE},
        "security": [{"key": []}, {}],
        "paths": paths | _HEALTH,
        "components": {
            "schemas": components,
            "responses": {str(status): _problem(status) for status in _problems(doors)},
            "headers": _HEADERS,
            "securitySchemes": {"key": _KEY},
        },
    }


# ── operations ──────────────────────────────────────────────────────────────────────────────────────


def _operation(door: Door, schemas: Mapping[Any, Schema]) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(door.handler.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": door.handler.__name__.strip("_"),
        "summary": summary,
        "tags": [door.handler.__module__.rpartition(".")[2]],
        "parameters": [*_path_parameters(door), *_query_parameters(door), *_header_parameters(door)],
        "responses": {str(status): _answer(door, status, kind, schemas) for status, kind in door.answers.items()},
    }
    if more:
        operation["description"] = more
    if door.public:
        operation["security"] = []
    if door.body is not None:
        operation["requestBody"] = {
            "required": not door.body_optional,
            "content": _content(door.body, schemas),
        }
    for status in errors_of(door):
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}
    return operation


def errors_of(door: Door) -> list[int]:
    """The statuses of the problems that a door may answer."""
    if door.public:
        return sorted({*door.errors, 400, 403, 500, 503})
    with_body = _WITH_BODY if door.body is not None else ()
    writes = _WRITES if door.writes else ()
    return sorted({*door.errors, *_ANY_REQUEST, *with_body, *writes})


def _path_parameters(door: Door) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": NAMESPACE if name == "namespace" else KEY}
        for name in re.findall(r"{(\w+)", door.path)
    ]


def _query_parameters(door: Door) -> list[Schema]:
    return [_query_parameter(name, param) for name, param in door.query.items()]


def _query_parameter(name: str, param: Param) -> Schema:
    schema = {"content": {"application/json": {"schema": param.schema}}} if param.json else {"schema": param.schema}
    return {"name": name, "in": "query", "description": param.description, **schema}


def _header_parameters(door: Door) -> list[Schema]:
    names: list[str] = []
    if door.conditional:
        names += ["If-Match", "If-None-Match"]
    if door.writes:
        names.append(wire.REQUEST_ID)
    if door.path in (wire.EXECUTE, wire.BATCHES):
        names.append(wire.SHIELD)
    if any(isinstance(each, Media) and each.type == "text/event-stream" for each in kinds_of(door)):
        names.append("Last-Event-ID")
    return [{"name": name, "in": "header", **_HEADER_PARAMETERS[name, door.method == "GET"]} for name in names]


_tag = '"[!#-~]*"'
_HEADER_PARAMETERS: Final[dict[tuple[str, bool], Schema]] = {
    ("If-Match", True): {
        "description": "Answer only if this is the version.",
        "schema": {"type": "string", "pattern": rf"^(\*|{_tag}(, {_tag})*)$"},
        "example": '"3"',
    },
    ("If-Match", False): {
        "description": "Only if this is the version now; `*`: only if there is one.",
        "schema": {"type": "string", "pattern": rf"^(\*|{_tag})$"},
        "example": '"3"',
    },
    ("If-None-Match", True): {
        "description": "304 if this is the version still.",
        "schema": {"type": "string", "pattern": rf"^(\*|(W/)?{_tag}(, (W/)?{_tag})*)$"},
        "example": '"3"',
    },
    ("If-None-Match", False): {
        "description": "Only if there is none yet.",
        "schema": {"type": "string", "enum": ["*"]},
    },
    (wire.REQUEST_ID, False): {
        "description": "A name of your choice for this write. Sent again with it, the write is applied once.",
        "schema": REQUEST_ID,
    },
    (wire.SHIELD, False): {
        "description": "Stands in the body for the `\\u` of half a surrogate pair, which JSON readers refuse.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
    ("Last-Event-ID", True): {
        "description": "Where a stream goes on; it wins over `after`.",
        "schema": {"type": "string"},
    },
}


def _answer(door: Door, status: int, kind: Any, schemas: Mapping[Any, Schema]) -> Schema:
    answer: Schema = {"description": HTTPStatus(status).phrase}
    if kind is not None:
        answer["content"] = _content(kind, schemas)
    if door.conditional and door.method in ("GET", "PUT", "PATCH"):
        answer["headers"] = {"ETag": {"$ref": "#/components/headers/ETag"}}
    return answer


def _content(kind: Any, schemas: Mapping[Any, Schema]) -> Schema:
    content: Schema = {}
    for each in kind if isinstance(kind, tuple) else (kind,):
        if isinstance(each, Media):
            content[each.type] = {"schema": {"type": "string", "description": each.description}}
        else:
            content["application/json"] = {"schema": schemas[each]}
    return content


# ── problems ────────────────────────────────────────────────────────────────────────────────────────


def _problems(doors: Iterable[Door]) -> list[int]:
    return sorted({status for door in doors for status in errors_of(door)})


def _problem(status: int) -> Schema:
    names = [name for name, each in wire.STATUS.items() if each == status]
    answer: Schema = {
        "description": ". ".join([HTTPStatus(status).phrase, *([", ".join(names)] if names else [])]),
        "content": {wire.PROBLEM_MEDIA: {"schema": PROBLEM}},
    }
    if status == HTTPStatus.UNAUTHORIZED:
        answer["headers"] = {"WWW-Authenticate": {"$ref": "#/components/headers/WWW-Authenticate"}}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        answer["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return answer


_HEADERS: Final[Schema] = {
    "ETag": {"description": "The version, in quotes.", "schema": {"type": "string"}, "example": '"3"'},
    "Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to say who you are.", "schema": {"type": "string"}},
}
_LICENSE: Final = {"name": "MIT", "identifier": "MIT"}
_KEY: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `bw_…`. On loopback none is needed as long as none has been made.",
}


# ── what is there besides the doors ─────────────────────────────────────────────────────────────────


def _probe(name: str, summary: str, media: str, errors: Sequence[int], *, public: bool = True) -> Schema:
    responses: Schema = {"200": {"description": "OK", "content": {media: {"schema": _PROBED[media]}}}}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in errors}
    operation = {"operationId": name, "summary": summary, "tags": ["health"], "responses": responses}
    return {"get": operation | ({"security": []} if public else {})}


_PROBED: Final[Schema] = {
    "application/json": {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]},
    "text/plain": {"type": "string"},
}
_HEALTH: Final[Schema] = {
    "/healthz": _probe("healthz", "Whether the server is alive.", "application/json", ()),
    "/readyz": _probe("readyz", "Whether it takes requests, and its store answers.", "application/json", (503,)),
    "/metrics": _probe(
        "metrics", "Figures for Prometheus.", "text/plain", (401, 403, 404, 429, 500, 503), public=False
    ),
}
