"""LangGraph's filters: `{"kind": "fact", "score": {"$gte": 3}}`, as its own `InMemoryStore` takes them.

A missing field counts as null. `$gt`, `$gte`, `$lt` and `$lte` compare numbers, also those written as text, and else
text with text; what cannot be compared does not match, where `InMemoryStore` raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from botwire.errors import InvalidInput

Filter = Mapping[str, Any]

_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}
_OPERATORS = ("$eq", "$ne", *_ORDERED)


def check(wanted: Any) -> None:
    """Raise `InvalidInput`, which is a `ValueError`, if the filter is none."""
    if not isinstance(wanted, Mapping):
        raise InvalidInput(f"filter must be a dict of fields and conditions, not {type(wanted).__name__}")
    for field, condition in cast("Filter", wanted).items():
        if not isinstance(field, str):
            raise InvalidInput(f"a field of a filter must be a str, not {type(field).__name__}: {field!r}")
        _check_condition(field, condition)


def _check_condition(field: str, condition: Any) -> None:
    if isinstance(condition, list | tuple):
        for each in cast("list[Any]", condition):
            _check_condition(field, each)
    elif isinstance(condition, Mapping):
        if not _has_operators(condition):
            check(condition)
            return
        for name in condition:
            if name not in _OPERATORS:
                raise InvalidInput(f"Unsupported operator: {name!r} for {field!r}; there are {' '.join(_OPERATORS)}")


def for_the_store(wanted: Filter) -> dict[str, Any] | None:
    """The part of the filter that means the same to botwire's `where`, for the store to apply."""
    return {name: condition for name, condition in wanted.items() if _is_plain(name) and _is_same(condition)} or None


def _is_plain(name: str) -> bool:
    """Not a path, not an operator, and not what a value that is no object is shown under."""
    return "." not in name and not name.startswith("$") and name != "value"


def _is_same(condition: Any) -> bool:
    """Text compares alike; `1` and `True`, or null and what is missing, do not."""
    if isinstance(condition, dict) and len(cast("Filter", condition)) == 1:
        ((name, condition),) = cast("Filter", condition).items()
        return name in ("$eq", "$ne") and type(condition) is str
    return type(condition) is str


def matches(value: Mapping[str, Any], wanted: Filter) -> bool:
    """Whether a value passes the filter."""
    return all(_meets(value.get(field), condition) for field, condition in wanted.items())


def _meets(value: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping):
        conditions = cast("Filter", condition)
        if _has_operators(conditions):
            return all(_applies(value, name, other) for name, other in conditions.items())
        return isinstance(value, Mapping) and matches(cast("Filter", value), conditions)
    if isinstance(condition, list | tuple):
        parts = cast("list[Any]", condition)
        return isinstance(value, list) and len(value) == len(parts) and all(map(_meets, value, parts))
    return bool(value == condition)


def _has_operators(condition: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in condition)


def _applies(value: Any, name: str, other: Any) -> bool:
    if name == "$eq":
        return bool(value == other)
    if name == "$ne":
        return bool(value != other)
    left, right = _number(value), _number(other)
    if left is not None and right is not None:
        return _ORDERED[name](left, right)
    return isinstance(value, str) and isinstance(other, str) and _ORDERED[name](value, other)


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None
