"""The OpenAPI description, made from the doors and from the structs that travel: nothing in it is written twice."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Final, cast, get_args

import msgspec

from botwire import __version__, ops, wire

from .constraints import (
    CONSTRAINTS,
    FILTER,
    FILTER_ITSELF,
    KEY,
    NAMESPACE,
    OWN,
    REQUEST_ID,
    TIME,
    TIME_TEXT,
    WHOLE,
    Schema,
)
from .doors import Door, Media
from .examples import EXAMPLES
from .parameters import Param

OPS: Final[tuple[type[ops.Op], ...]] = get_args(ops.AnyOp)
REF: Final = "#/components/schemas/{name}"
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
    schemas, components = _schemas(doors)
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
            "schemas": components | {"Filter": FILTER_ITSELF},
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
    if any(isinstance(each, Media) and each.type == "text/event-stream" for each in _kinds(door)):
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


# ── schemas ─────────────────────────────────────────────────────────────────────────────────────────


def _kinds(door: Door) -> list[Any]:
    """Everything that a door takes or answers."""
    found: list[Any] = [door.body]
    for kind in door.answers.values():
        found += kind if isinstance(kind, tuple) else (kind,)
    return [each for each in found if each is not None]


def _schemas(doors: Sequence[Door]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """The schema of each type that travels, and the components that these refer to."""
    kinds = list(dict.fromkeys(kind for door in doors for kind in _kinds(door) if not isinstance(kind, Media)))
    kinds += [each for each in (wire.Problem, *(op.result for op in OPS)) if each not in kinds]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    structs = {each.__name__: each for each in _structs(kinds)}
    sent = {each.__name__ for each in _structs([*OPS, *(door.body for door in doors if isinstance(door.body, type))])}
    for label, schema in components.items():
        _describe(schema, structs[label])
        if label in sent:
            _narrow(schema, label)
            schema.update(WHOLE.get(label, {}))
        if label in EXAMPLES:
            schema["examples"] = [EXAMPLES[label]]
    return dict(zip(kinds, schemas, strict=True)), components


def _structs(kinds: Iterable[Any]) -> set[type[msgspec.Struct]]:
    """Every struct that is part of these types."""
    found: set[type[msgspec.Struct]] = set()
    left: list[Any] = list(msgspec.inspect.multi_type_info(list(kinds)))
    while left:
        each = left.pop()
        if isinstance(each, msgspec.inspect.StructType):
            if each.cls not in found:
                found.add(each.cls)
                left += [field.type for field in each.fields]
        elif isinstance(each, msgspec.inspect.UnionType):
            left += each.types
        elif (inner := getattr(each, "item_type", None)) is not None:
            left.append(inner)
    return found


def _describe(schema: Schema, struct: type[msgspec.Struct]) -> None:
    """Add what the code says of a struct and of its fields."""
    schema["description"] = inspect.cleandoc(struct.__doc__ or "")
    if issubclass(struct, ops.Op):
        schema["description"] += f" Answers: {_told(struct.result)}."
        if "subtree" in schema["properties"] and struct is not ops.Namespaces:
            schema["anyOf"] = [_NO_ROOT, {"properties": {"subtree": {"const": True}}, "required": ["subtree"]}]
    for name, text in field_docs(struct).items():
        if name in schema["properties"]:
            schema["properties"][name]["description"] = text


_NO_ROOT: Final = {"properties": {"namespace": {"minLength": 1}}}
_ROOTED: Final = ("Describe", "Namespaces", "Configure")


def _told(kind: Any) -> str:
    """A type as text: `Item | None` as "Item or null"."""
    text = str(kind) if get_args(kind) else kind.__name__
    return (
        re.sub(r"[\w.]+\.(\w+)", r"\1", text).replace(" | ", " or ").replace("None", "null").replace("Raw", "{value}")
    )


def field_docs(struct: type) -> dict[str, str]:
    """The strings that stand below a struct's fields in its source."""
    docs: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        definition = _classes(each.__module__).get(each.__name__)
        for field, below in pairwise(definition.body if definition is not None else ()):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                docs[cast("ast.Name", field.target).id] = inspect.cleandoc(ast.literal_eval(below.value))
    return docs


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes in a module's source; of a module that is not ours, none."""
    if not module.startswith("botwire"):
        return {}
    source = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each for each in source.body if isinstance(each, ast.ClassDef)}


def _narrow(schema: Schema, label: str) -> None:
    """Add what is checked in code to the schema of something that is sent here."""
    for name, own in schema["properties"].items():
        if name == "where":
            own["anyOf"][0] = FILTER
        rule = OWN.get((label, name)) or CONSTRAINTS.get(name)
        if rule is None or (own.get("default") == "" and "minLength" in rule):
            continue
        branches: list[Schema] = own.get("anyOf", [own])
        for branch in branches:
            narrower = TIME_TEXT if rule is TIME and branch.get("type") == "string" else rule
            if branch.get("type") == narrower["type"]:
                branch.update({key: value for key, value in narrower.items() if key != "description"})
        if name == "namespace" and (label in _ROOTED or "anyOf" in schema):
            own.update({"minLength": 0, "pattern": f"^$|{rule['pattern']}"})
