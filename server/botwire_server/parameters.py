"""Parameters of queries: how each is read, and what OpenAPI says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from botwire.errors import InvalidInput
from botwire.names import MAX_TAGS, check_name, check_tags
from botwire.ops import MAX_PAGE, microseconds

from .constraints import FILTER, KEY, MAX_WHOLE, NAME_PREFIX, Schema


class Param(Struct, frozen=True):
    """A parameter of a query."""

    read: Callable[[str, Any], Any]
    """From its name and text (or texts, if repeated) to the value. Raises `InvalidInput`."""
    schema: Schema
    description: str
    field: str = ""
    """The field of the op that it fills, if it is called otherwise."""
    repeated: bool = False
    json: bool = False
    """Whether its text is JSON, which the schema describes."""


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


def _text(_: str, text: str) -> str:
    return text


def _name(name: str, text: str) -> str:
    check_name(text, name)
    return text


def _names(name: str, texts: list[str]) -> tuple[str, ...]:
    return tuple(_name(name, text) for text in texts)


def _whole(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text, re.ASCII):
        raise InvalidInput(f"{name}={text[:40]!r} must be a whole number, zero or more, of at most 18 digits")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidInput(f"{name}={text[:40]!r} must be true or false")
    return text == "true"


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text.encode(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(f'{name} must be a JSON object such as {{"city":"Rome"}}: {error}') from error


def moment(name: str, text: str) -> int:
    """Microseconds since 1970, from just that or from a time such as 2026-01-31T12:00:00Z."""
    if re.fullmatch("[0-9]{1,18}", text, re.ASCII):
        return int(text)
    try:
        return microseconds(datetime.fromisoformat(text))
    except InvalidInput:
        raise InvalidInput(f"{name}={text!r} names no time zone: write 2026-01-31T12:00:00Z") from None
    except (ValueError, OverflowError):
        hint = "; write the + of a time zone as %2B, or use Z" if re.search(r"\d \d\d:?\d\d$", text) else ""
        raise InvalidInput(
            f"{name}={text[:40]!r} must be a time such as 2026-01-31T12:00:00Z, or microseconds since 1970{hint}"
        ) from None


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in words:
            raise InvalidInput(f"{name}={text[:40]!r} must be one of {', '.join(words)}")
        return text

    return read


# ── kinds ───────────────────────────────────────────────────────────────────────────────────────────


def text(description: str, schema: Schema) -> Param:
    """Any text."""
    return Param(_text, schema, description)


def whole(description: str, **schema: Any) -> Param:
    """A whole number."""
    limits = {"minimum": 0, "maximum": MAX_WHOLE}
    return Param(_whole, {"type": "integer", "format": "int64", **limits, **schema}, description)


def flag(description: str, *, default: bool = False) -> Param:
    """True or false."""
    return Param(_flag, {"type": "boolean", "default": default}, description)


def choice(description: str, *words: str) -> Param:
    """One of several words, the first by default."""
    return Param(_one_of(*words), {"type": "string", "enum": list(words), "default": words[0]}, description)


def choices(description: str, *words: str) -> Param:
    """One or more of several words."""
    one = _one_of(*words)
    schema = {"type": "array", "items": {"type": "string", "enum": list(words)}}
    return Param(lambda name, texts: tuple(one(name, text) for text in texts), schema, description, repeated=True)


def several(description: str, field: str, read: Callable[[str, Any], Any] = _names) -> Param:
    """A parameter that may come several times."""
    schema = {"type": "array", "items": KEY, "maxItems": MAX_TAGS}
    return Param(read, schema, description, field, repeated=True)


TIME: Final[Schema] = {
    "oneOf": [
        {"type": "string", "format": "date-time"},
        {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_WHOLE},
    ]
}
LIMIT: Final = whole("How many at most.", maximum=MAX_PAGE, default=100)
CURSOR: Final = text("The `cursor` of the page before.", {"type": "string", "minLength": 1})
PREFIX: Final = text("Only names that begin with this.", NAME_PREFIX)
AUTHOR: Final = Param(_name, KEY, "Only what this author has set.")
SUBTREE: Final = flag("Take in the namespaces below this one.")
TAGS: Final = several("Only items with this tag; several: with all of them.", "tags", lambda _, tags: check_tags(tags))
WHERE: Final = Param(
    _object,
    FILTER,
    'A filter on fields of the value, as a JSON object: `{"city": "Rome", "age": {"$gte": 18}}`. '
    "Operators: $eq $ne $gt $gte $lt $lte $in $nin $exists $contains.",
    json=True,
)
SINCE: Final = Param(moment, TIME, "Only what was set at this time or later.")
UNTIL: Final = Param(moment, TIME, "Only what was said or set before this time.")
CONVERSATION: Final = Param(_name, KEY, "Only messages of this conversation.")
