"""Values: from Python to JSON text and back, exactly.

What JSON knows comes back as it was: `5` is not `"5"`, `1.0` stays a float, big integers stay, the
order of keys stays. Dataclasses, datetimes, UUIDs, enums, decimals, msgspec structs and pydantic models
are written as JSON and come back typed with `get(key, type=T)`. What JSON cannot say is an error,
except that tuples and sets become lists and number keys become strings, as in `json`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import msgspec

from .errors import InvalidInput, TooLarge

MAX_VALUE_BYTES = 1024 * 1024
MAX_DEPTH = 128  # containers inside each other: well below Python's recursion limit, so what was written can be read

_strings = re.compile(rb'"(?:[^"\\]|\\.)*"')
_brackets = re.compile(rb"[\[\]{}]")


def _encode_unknown(value: Any) -> Any:
    """Encode what msgspec does not know by itself: pydantic models, mappings and texts of other classes."""
    if isinstance(value, str):
        return str.__str__(value)
    if hasattr(type(value), "model_dump"):  # pydantic, without importing it
        return value.model_dump(mode="json")
    if hasattr(type(value), "keys") and hasattr(type(value), "__getitem__"):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


_encode = msgspec.json.Encoder(enc_hook=_encode_unknown, decimal_format="string").encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any, limit: int = MAX_VALUE_BYTES) -> bytes:
    """The JSON text of a value, in UTF-8.

    Raises `InvalidInput` for NaN, infinities, cycles, unknown types and values nested over 128 deep,
    and `TooLarge` when the text is over `limit` bytes.
    """
    try:
        text = _encode(value)
    except RecursionError:
        raise InvalidInput("the value contains itself or is nested too deep: the limit is 128 levels") from None
    except UnicodeEncodeError:
        text = _encode_surrogates(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            f"the value cannot be stored: {error}; store plain JSON, a dataclass or a pydantic model"
        ) from error
    if len(text) > limit:
        raise TooLarge(
            f"the value takes {len(text):,} bytes as JSON: the limit is {limit:,}; split it over several keys"
        )
    if b"null" in text:  # msgspec writes NaN and infinities as null
        _refuse_nan(value)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _check_depth(text)
    return text


def decode(text: bytes | msgspec.Raw) -> Any:
    """The value of a JSON text that `encode` made."""
    try:
        value = _decode(text)
    except msgspec.DecodeError:  # half a surrogate pair, which msgspec refuses and Python's json allows
        return json.loads(bytes(text))
    if type(value) is str and value.startswith("bwe1:"):
        _refuse_envelope(text)
    return value


def is_text(text: Any) -> bool:
    """Whether this is a str that has a UTF-8 form."""
    return isinstance(text, str) and text.encode(errors="ignore").decode() == text


def _refuse_envelope(text: bytes | msgspec.Raw) -> None:
    from .sealing import is_envelope  # here, so that `import botwire` stays quick

    if is_envelope(text):
        raise InvalidInput("this value is encrypted: open the memory with its encryption_key")


def decode_as(text: bytes | msgspec.Raw, type_: Any) -> Any:
    """The value as `type_`: any type msgspec knows, or a pydantic model. Raises `InvalidInput` if it does not fit."""
    _refuse_envelope(text)
    try:
        if hasattr(type_, "model_validate"):
            return type_.model_validate(decode(text))
        return msgspec.json.decode(text, type=type_)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        name = getattr(type_, "__name__", str(type_))
        raise InvalidInput(f"the stored value is no {name}: {error}") from error


def check_text(text: msgspec.Raw | bytes, limit: int) -> None:
    """Check a JSON text from outside as `encode` checks a value: its size and its depth. Raises what `encode` does."""
    data = bytes(text)
    if len(data) > limit:
        raise TooLarge(f"the value takes {len(data):,} bytes as JSON: the limit is {limit:,}")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(data)


def from_outside(text: msgspec.Raw | bytes) -> msgspec.Raw:
    """A JSON text that somebody else has written, checked, and without white space, as `encode` would leave it.

    Raises `InvalidInput` for what is no JSON in UTF-8, for numbers out of range, and for what is nested too deep.
    """
    data = bytes(text)
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(data)
    try:
        _decode(data)
        return msgspec.Raw(msgspec.json.format(data, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(_with_surrogates(data))


def _with_surrogates(text: bytes) -> bytes:
    """The same for text that may hold half a surrogate pair, which msgspec refuses and Python's json allows."""
    try:
        return json.dumps(json.loads(text), allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the value is no JSON that can be kept: {error}") from error


def _encode_surrogates(value: Any) -> bytes:
    """JSON with escapes for text that holds half a surrogate pair; rare enough to go the slow way."""
    try:
        plain = json.loads(json.dumps(msgspec.to_builtins(value, enc_hook=_encode_unknown), allow_nan=False))
        return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the value cannot be stored: {error}") from error


def _refuse_nan(value: Any) -> None:
    try:
        plain = msgspec.to_builtins(value, enc_hook=_encode_unknown)
    except UnicodeEncodeError:
        return  # the slow encoder above has refused NaN already
    stack = [plain]
    while stack:
        part = stack.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                raise InvalidInput(f"the value holds {part}, which JSON cannot say: store None or a string instead")
        elif isinstance(part, dict):
            stack.extend(cast("dict[str, Any]", part).values())
        elif isinstance(part, list | tuple | set | frozenset):
            stack.extend(cast("list[Any]", part))


def _check_depth(text: bytes) -> None:
    depth = deepest = 0
    for bracket in _brackets.findall(_strings.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise InvalidInput(f"the value is nested {deepest} levels deep: the limit is {MAX_DEPTH}")
