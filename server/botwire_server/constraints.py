"""What the structs check in code, said in JSON Schema, so that the OpenAPI description says it too."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

from botwire.names import MAX_NAME_BYTES, MAX_TAGS
from botwire.ops import END_OF_TIME, MAX_AROUND, MAX_DIMENSION, MAX_HITS, MAX_PAGE, MAX_SECONDS

Schema = dict[str, Any]

_CHAR: Final = r"[^\u0000-\u001f\u007f-\u009f]"
_LEVEL: Final = r"[^/\u0000-\u001f\u007f-\u009f]+"
INT64: Final = 2**63 - 1
SAFE: Final = 2**53 - 1
MAX_WHOLE: Final = 10**18 - 1  # of a number in a query


def name(pattern: str = f"^{_CHAR}+$", example: str = "coffee") -> Schema:
    """The schema of a name."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME_BYTES,
        "pattern": pattern,
        "description": f"1 to {MAX_NAME_BYTES} bytes in UTF-8, without control characters.",
        "examples": [example],
    }


NAMESPACE: Final = name(f"^{_LEVEL}(/{_LEVEL})*$", "user-42")
KEY: Final = name()
MESSAGE_ID: Final = name(rf"^[^#\u0000-\u001f\u007f-\u009f]{_CHAR}*$", "m-1")
NAME_PREFIX: Final[Schema] = {"type": "string", "maxLength": MAX_NAME_BYTES, "pattern": f"^{_CHAR}*$"}
VERSION: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": INT64}
TIME: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0, "maximum": END_OF_TIME - 1}
TIME_TEXT: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^(19[7-9]\d|[2-9]\d{3})-\d\d-\d\dT",
}
LIMIT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_PAGE}
TTL: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}
TAGS: Final[Schema] = {"type": "array", "items": KEY, "maxItems": MAX_TAGS}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": SAFE}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0, "maximum": MAX_SECONDS}
REQUEST_ID: Final[Schema] = {"type": "string", "pattern": "^[!-~]{1,255}$"}

_OPERATORS: Final = {
    "type": "object",
    "minProperties": 1,
    "properties": {
        **{f"${name}": {} for name in ("eq", "ne", "gt", "gte", "lt", "lte", "exists", "contains")},
        **{f"${name}": {"type": "array"} for name in ("in", "nin")},
    },
    "additionalProperties": False,
}
FILTER: Final[Schema] = {"$ref": "#/components/schemas/Filter"}
FILTER_ITSELF: Final[Schema] = {
    "title": "Filter",
    "description": "Conditions on fields of the value, all of which must hold. A field may be a path (`address.city`).",
    "type": "object",
    "propertyNames": {"pattern": r"^(?!\$)"},
    "additionalProperties": {"anyOf": [{"not": {"type": "object"}}, _OPERATORS, FILTER]},
    "examples": [{"city": {"$in": ["Rome", "Oslo"]}}],
}


def _given(field: str) -> Schema:
    """That a field has a value."""
    nothing: Schema = {"not": {"enum": [None, False]}}
    return {"properties": {field: nothing}, "required": [field]}


def _two_of(*fields: str) -> Schema:
    """That at least two of the fields have values."""
    return {"anyOf": [{"allOf": [_given(one), _given(other)]} for one, other in combinations(fields, 2)]}


def _exactly_one(*fields: str) -> Schema:
    """That one of the fields has a value, and one alone."""
    return {"oneOf": [_given(field) for field in fields]}


CONSTRAINTS: Final[dict[str, Schema]] = {
    "namespace": NAMESPACE,
    "key": KEY,
    "conversation": KEY,
    "author": KEY,
    "role": KEY,
    "prefix": NAME_PREFIX,
    "limit": LIMIT,
    "ttl": TTL,
    "if_version": VERSION,
    "as_of": VERSION,
    "as_of_time": TIME,
    "since": TIME,
    "expires": TIME,
    "older_than": TIME,
    "at": TIME,
    "tags": TAGS,
    "keep": COUNT,
    "history": {"type": "integer", "minimum": 0, "maximum": 10_000},
    "max_age": SECONDS,
    "feed_max_age": SECONDS,
    "messages_max_age": SECONDS,
    "feed": COUNT,
    "max_value_bytes": {**COUNT, "minimum": 1},
    "messages": COUNT,
    "max_items": COUNT,
    "max_bytes": COUNT,
    "writes_per_day": COUNT,
    "request_id": REQUEST_ID,
    "until": TIME,
    "model": KEY,
    "around": {"type": "integer", "minimum": 0, "maximum": MAX_AROUND},
    "dimension": {"type": "integer", "minimum": 1, "maximum": MAX_DIMENSION},
    "vectors": {"type": "array", "maxItems": MAX_PAGE},
}
"""By the name of a field; each narrows the branch of the field's schema that has its type."""

OWN: Final[dict[tuple[str, str], Schema]] = {
    ("NewMessage", "id"): MESSAGE_ID,
    ("SentMessage", "id"): MESSAGE_ID,
    ("Edit", "id"): KEY,
    ("Messages", "after"): VERSION,
    ("Messages", "before"): VERSION,
    ("Search", "limit"): {**LIMIT, "maximum": MAX_HITS},
}
"""By the names of struct and field, where the field's name alone does not say it."""

WHOLE: Final[dict[str, Schema]] = {
    "Trimming": {"oneOf": [{"required": ["keep"]}, {"required": ["older_than"]}]},
    "Trim": _exactly_one("keep", "older_than", "ids"),
    "Erasure": {"not": _two_of("key", "conversation", "subtree")},
    "Erase": {"not": _two_of("key", "conversation", "subtree")},
    "Put": {"not": _two_of("ttl", "expires")},
    "Search": {"oneOf": [_two_of("vector", "model"), {"not": {"anyOf": [_given("vector"), _given("model")]}}]},
}
"""By the name of a struct: what holds between its fields."""
