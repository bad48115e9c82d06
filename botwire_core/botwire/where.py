"""Filters: `where={"city": "Rome", "age": {"$gte": 18}}` on the fields of a value.

Every condition must hold. A field may be a path with dots (`"address.city"`). Operators: `$eq $ne $gt $gte $lt
$lte $in $nin $exists $contains`. A missing field matches only `$ne`, `$nin` and `$exists: false`. A plain dict
of field names matches when each of its fields does. The same function serves every store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from .errors import InvalidInput
from .values import MAX_DEPTH

_MISSING: Any = object()


def _equal(left: Any, right: Any) -> bool:
    """As in JSON, where `true` is not `1`."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _comparable(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    number = isinstance(left, int | float) and isinstance(right, int | float)
    return number or (isinstance(left, str) and isinstance(right, str))


def _contains(value: Any, part: Any) -> bool:
    """A text a text, a list an element, an object a field."""
    if isinstance(value, str | dict):
        return isinstance(part, str) and part in value
    return isinstance(value, list) and any(_equal(each, part) for each in value)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda value, other: not _equal(value, other),
    "$gt": lambda value, other: _comparable(value, other) and value > other,
    "$gte": lambda value, other: _comparable(value, other) and value >= other,
    "$lt": lambda value, other: _comparable(value, other) and value < other,
    "$lte": lambda value, other: _comparable(value, other) and value <= other,
    "$in": lambda value, other: any(_equal(value, each) for each in other),
    "$nin": lambda value, other: not any(_equal(value, each) for each in other),
    "$exists": lambda value, other: (value is not _MISSING) == bool(other),
    "$contains": _contains,
}


def check_where(where: dict[str, Any], depth: int = 1) -> None:
    """Raise `InvalidInput` if the filter is not one."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the filter is nested over {MAX_DEPTH} levels deep")
    if not isinstance(where, dict):
        raise InvalidInput(f"where must be a dict of fields and conditions, not {type(where).__name__}")
    for field, condition in where.items():
        if not isinstance(field, str):
            raise InvalidInput(f"a field of a filter must be a str, not {type(field).__name__}: {field!r}")
        if field.startswith("$"):
            raise InvalidInput(f'{field!r} stands where a field should: write {{"field": {{{field!r}: …}}}}')
        if isinstance(condition, dict):
            _check_condition(field, cast("dict[str, Any]", condition), depth)


def _check_condition(field: str, condition: dict[str, Any], depth: int) -> None:
    if not any(isinstance(name, str) and name.startswith("$") for name in condition):
        check_where(condition, depth + 1)
        return
    for name, other in condition.items():
        if name not in _OPERATORS:
            raise InvalidInput(f"unknown operator {name!r} for {field!r}: there are {' '.join(_OPERATORS)}")
        if name in ("$in", "$nin") and not isinstance(other, list | tuple):
            raise InvalidInput(f"{name} for {field!r} takes a list, not {type(other).__name__}")


def matches(value: Any, where: dict[str, Any]) -> bool:
    """Whether the value meets every condition of the filter."""
    return all(_meets(_field(value, field), condition) for field, condition in where.items())


def _field(value: Any, path: str) -> Any:
    if isinstance(value, dict) and path in value:
        return cast("dict[str, Any]", value)[path]
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = cast("dict[str, Any]", value)[name]
    return value


def _meets(value: Any, condition: Any) -> bool:
    if not isinstance(condition, dict) or not condition:
        return _equal(value, condition)
    conditions = cast("dict[str, Any]", condition)
    if any(name.startswith("$") for name in conditions):
        return all(_OPERATORS[name](value, other) for name, other in conditions.items())
    return isinstance(value, dict) and matches(cast("dict[str, Any]", value), conditions)
