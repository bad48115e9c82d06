"""What botwire recognises in a message, whatever framework wrote it.

OpenAI chat messages and Responses items, Anthropic messages, LangChain's serialised messages and
pydantic-ai's parts are known; any other JSON is a message too, of which nothing is recognised. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast

from .errors import InvalidInput
from .names import check_name
from .ops import END_OF_TIME, MICROSECONDS, microseconds

Fields = dict[str, Any]

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant"}
_ROLE_OF_TYPE = {"function_call": "assistant", "function_call_output": "tool", "reasoning": "assistant"}
_CALL_TYPES = ("tool_use", "tool-call", "tool_call")
_RESULT_TYPES = ("tool_result", "tool-return", "tool_return")


def _dict(value: Any) -> Fields:
    return cast("Fields", value) if isinstance(value, dict) else {}


def _body(message: Any) -> Fields:
    """The fields of a message; LangChain keeps them under `data`."""
    fields = _dict(message)
    return _dict(fields["data"]) if isinstance(fields.get("data"), dict) and "type" in fields else fields


def role_of(message: Any) -> str | None:
    """Who speaks: `system`, `user`, `assistant`, `tool`, …, or `None` if the message does not say."""
    fields = _dict(message)
    kind = fields.get("type")
    role = fields.get("role")
    if role is None and isinstance(kind, str) and isinstance(fields.get("data"), dict):  # as LangChain writes them
        kind = kind.removesuffix("MessageChunk").lower()  # of a part that was streamed
        role = _dict(fields["data"]).get("role") if kind == "chat" else kind
    role = role or _ROLE_OF_TYPE.get(str(kind))
    if not isinstance(role, str):
        return None
    return _ROLES.get(role, role)


def author_of(message: Any) -> str | None:
    """The speaker's name, if the message gives one."""
    fields = _body(message)
    if str(fields.get("type")).endswith("_call"):
        return None  # of OpenAI's Responses: `name` is the tool's
    name = fields.get("author") or fields.get("name") or fields.get("source")
    return name if isinstance(name, str) else None


def time_of(message: Any) -> int | None:
    """When the message was said (microseconds since 1970), if it gives an aware ISO 8601 time or Unix seconds."""
    fields = _body(message)
    for field in ("at", "created_at", "timestamp"):
        when = fields.get(field)
        if isinstance(when, str):
            try:
                parsed = datetime.fromisoformat(when)
            except ValueError:
                continue
            said = None if parsed.tzinfo is None else microseconds(parsed)
        elif isinstance(when, int | float) and not isinstance(when, bool) and 0 < when < END_OF_TIME // MICROSECONDS:
            said = round(when * MICROSECONDS)
        else:
            continue
        if said is not None and 0 < said < END_OF_TIME:
            return said
    return None


def usable_name(name: str | None) -> str | None:
    """The name if the rules for names admit it: what is merely recognised must not refuse the message."""
    if name is None:
        return None
    try:
        check_name(name, "name")
    except InvalidInput:
        return None
    return name


def calls_of(message: Any) -> set[str]:
    """The ids of the tool calls that a message makes."""
    fields = _body(message)
    ids = [call.get("id") for call in map(_dict, _list(fields.get("tool_calls")))]
    if fields.get("type") == "function_call":
        ids.append(fields.get("call_id"))
    if isinstance(legacy := fields.get("function_call"), dict):
        ids.append(_dict(legacy).get("name"))
    calls = [part for part in _parts(fields) if _kind(part) in _CALL_TYPES]
    ids += [part.get("id") or part.get("tool_call_id") for part in calls]
    return {each for each in ids if isinstance(each, str)}


def results_of(message: Any) -> set[str]:
    """The ids of the tool calls that a message answers."""
    fields = _body(message)
    ids = [fields.get("tool_call_id")]
    if fields.get("type") == "function_call_output":
        ids.append(fields.get("call_id"))
    if fields.get("role") == "function":
        ids.append(fields.get("name"))
    results = [part for part in _parts(fields) if _kind(part) in _RESULT_TYPES]
    ids += [part.get("tool_use_id") or part.get("tool_call_id") for part in results]
    return {each for each in ids if isinstance(each, str)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _parts(fields: Fields) -> Iterator[Fields]:
    for field in ("content", "parts"):
        yield from map(_dict, _list(fields.get(field)))


def _kind(part: Fields) -> Any:
    return part.get("type") or part.get("part_kind")


def redacted(message: Any, text: str) -> Any:
    """The message with its content blotted out; role and tool-call ids stay, so that a model still accepts the rest."""
    fields = _dict(message)
    if isinstance(fields.get("data"), dict) and "type" in fields:
        return {**fields, "data": redacted(fields["data"], text)}
    if not fields:
        return text
    kept: Fields = {name: fields[name] for name in ("type", "role", "id", "call_id", "tool_call_id") if name in fields}
    if "tool_calls" in fields:
        kept["tool_calls"] = [_redacted_call(_dict(call)) for call in _list(fields["tool_calls"])]
    if fields.get("type") == "function_call":
        return {**kept, "name": fields.get("name"), "arguments": "{}"}
    if fields.get("type") in ("function", "FunctionMessageChunk"):  # LangChain does not read it without its name
        kept["name"] = fields.get("name")
    if fields.get("type") == "function_call_output":
        return {**kept, "output": text}
    for field in ("content", "parts"):
        if isinstance(fields.get(field), list):
            return {**kept, field: _redacted_parts(map(_dict, _list(fields[field])), text) or text}
    return kept if fields.get("type") == "remove" else {**kept, "content": text}  # LangChain's, which has no content


def _redacted_parts(parts: Iterable[Fields], text: str) -> list[Fields]:
    """Of tool calls and results what pairs them, and nothing else."""
    kept: list[Fields] = []
    for part in parts:
        if _kind(part) in (*_CALL_TYPES, *_RESULT_TYPES):
            names = ("type", "part_kind", "id", "tool_use_id", "tool_call_id", "name", "tool_name")
            pair: Fields = {name: part[name] for name in names if name in part}
            blank: Fields = {"input": {}} if "input" in part else {"args": {}} if "args" in part else {"content": text}
            kept.append({**pair, **blank})
    return kept


def _redacted_call(call: Fields) -> Fields:
    kept: Fields = {name: call[name] for name in ("id", "type", "name") if name in call}
    if isinstance(call.get("function"), dict):
        kept["function"] = {"name": _dict(call["function"]).get("name"), "arguments": "{}"}
    if "args" in call:
        kept["args"] = {}
    return kept
