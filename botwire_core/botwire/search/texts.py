"""The text of a value: what of its JSON is said in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

LONGEST_WORD = 512  # characters; a longer one is data: pictures, keys
_is_data = re.compile(r"(?:data:[^,]{0,100},)?[A-Za-z0-9+/=_-]+\s*").fullmatch

# What frameworks put beside what is said, and what names rather than says.
_NOT_SAID = frozenset(
    [
        "type",
        "role",
        "id",
        "name",
        "call_id",
        "tool_call_id",
        "tool_use_id",
        "tool_name",
        "part_kind",
        "object",
        "status",
        "model",
        "finish_reason",
        "media_type",
        "mime_type",
        "url",
        "image_url",
        "source",
        "encrypted_content",
        "signature",
        "at",
        "timestamp",
        "created_at",
        "usage",
        "logprobs",
        "response_metadata",
        "additional_kwargs",
    ]
)
_SAID = ("content", "text", "parts", "output", "message", "summary", "thinking", "refusal")  # where messages keep it


def of_item(value: Any, fields: bool | tuple[str, ...] | None = None) -> str:
    r"""Every string in a value, or in the named fields of it (`"address.city"`), a line each.

    >>> of_item({"name": "Ada", "likes": ["tea", {"best": "Earl Grey"}], "age": 36})
    'Ada\ntea\nEarl Grey'
    """
    if isinstance(value, str):
        return _usable(value) if not isinstance(fields, tuple) else ""
    if isinstance(fields, tuple):
        return _joined(string for field in fields for string in _strings(_field(value, field)))
    return _joined(_strings(value))


def of_message(value: Any) -> str:
    """What a message says, whatever framework wrote it.

    >>> of_message({"role": "user", "content": [{"type": "text", "text": "hello"}]})
    'hello'
    """
    if isinstance(value, str):
        return _usable(value)
    return _joined(_said(value))


def _said(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        yield from _strings(message)
        return
    fields = cast("dict[str, Any]", message)
    if isinstance(fields.get("data"), dict) and "type" in fields:  # as LangChain writes them
        fields = fields["data"]
    said = [fields[name] for name in _SAID if fields.get(name)]
    yield from _strings(said or fields, _NOT_SAID)
    if said:
        yield from _strings([_call(call) for call in fields.get("tool_calls") or ()], _NOT_SAID)


def _call(call: Any) -> Any:
    """What a tool is called with."""
    if not isinstance(call, dict):
        return call
    function = cast("dict[str, Any]", call.get("function") or call)
    return function.get("arguments") or function.get("args") if isinstance(function, dict) else function


def _strings(value: Any, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """The strings in a value, in their order. Values are at most 128 deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in cast("dict[str, Any]", value).items():
            if name not in without:
                yield from _strings(part, without)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, without)


def _field(value: Any, path: str) -> Any:
    if isinstance(value, dict) and path in value:
        return cast("dict[str, Any]", value)[path]
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, Any]", value).get(name)
    return value


def _joined(strings: Iterator[str]) -> str:
    return "\n".join(text for string in strings if (text := _usable(string)))


def _usable(text: str) -> str:
    """The text, unless it is data."""
    return "" if len(text) > LONGEST_WORD and _is_data(text) else text
