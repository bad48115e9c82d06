"""What travels between a client and a server: ops, their results, and errors as problem bodies (RFC 9457).

`POST /v1/execute` takes `{"ops": [...]}` and answers `{"results": [...]}`, one for each op, of its `Op.result` type.
Values stand in both as the JSON that they are. A write's request id travels as the header `Idempotency-Key`.

`POST /v1/batches` is what independent callers ask for at the same time, in one request. Each batch is atomic for
itself, carries its own request id, and is answered with its own results or its own problem.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from . import errors
from .errors import BotWireError, Conflict, InvalidInput, RateLimited
from .ops import AnyOp, Op, Value

EXECUTE: Final = "/v1/execute"
BATCHES: Final = "/v1/batches"
REQUEST_ID: Final = "Idempotency-Key"
SHIELD: Final = "Botwire-Shield"
PROBLEM_TYPE: Final = "urn:botwire:problem:"
PROBLEM_MEDIA: Final = "application/problem+json"


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: ops, run in order, all or nothing."""

    ops: list[AnyOp]


class Results(Struct, frozen=True):
    """The body of an answer: one result for each op."""

    results: list[Raw]


class OwnBatch(Batch, frozen=True, omit_defaults=True):
    """One caller's ops among those of others, and if they write their request id."""

    request_id: str | None = None


class Batches(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request of several callers. Its batches run in no particular order."""

    batches: list[OwnBatch]


class Found(Struct, frozen=True):
    """The result of a `Value` op that found something: so that a stored null is not taken for nothing."""

    value: Raw


# ── ops ─────────────────────────────────────────────────────────────────────────────────────────────

_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_batches = msgspec.json.Decoder(Batches).decode
_decode_results = msgspec.json.Decoder(Results).decode
_encode = msgspec.json.Encoder().encode
_found = msgspec.json.Decoder(Found | None)


def encode_ops(ops: Sequence[Op]) -> tuple[bytes, str | None]:
    """The body that asks for the ops, and its shield (see `shielded`), if it needs one."""
    return shielded(b'{"ops":' + _encode(list(ops)) + b"}")


def decode_ops(body: bytes, shield: str | None = None) -> list[Op]:
    """The ops of a body. Raises `InvalidInput` for what is no batch of ops."""
    ops: list[Any] = _decoded(_decode_batch, body).ops
    found: list[Op] = unshielded(ops, shield)
    return found


def encode_batches(bodies: Sequence[tuple[bytes, str | None]]) -> bytes:
    """The body that asks for the ops of several callers: bodies of `encode_ops`, unshielded, and their request ids."""
    return b'{"batches":[' + b",".join(_own_batch(body, request_id) for body, request_id in bodies) + b"]}"


def _own_batch(body: bytes, request_id: str | None) -> bytes:
    return body if request_id is None else body[:-1] + b',"request_id":' + _encode(request_id) + b"}"


def decode_batches(body: bytes, shield: str | None = None) -> list[tuple[list[Op], str | None]]:
    """The batches of a body, as ops and request id. Raises `InvalidInput` for what is none."""
    batches: list[OwnBatch] = _decoded(_decode_batches, body).batches
    return [(unshielded(batch.ops, shield), batch.request_id) for batch in batches]


def _decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error.__cause__, BotWireError):  # an op has refused its arguments
            raise error.__cause__ from None
        raise InvalidInput(f"the body is no batch of ops: {error}") from error


# ── results ─────────────────────────────────────────────────────────────────────────────────────────


def encode_results(ops: Sequence[Op], results: Sequence[Any]) -> tuple[bytes, str | None]:
    """The body that answers the ops, and its shield."""
    return shielded(b'{"results":' + _encode(_told(ops, results)) + b"}")


def _told(ops: Sequence[Op], results: Sequence[Any]) -> list[Any]:
    return [
        Found(result) if type(op) is Value and result is not None else result
        for op, result in zip(ops, results, strict=True)
    ]


def decode_results(ops: Sequence[Op], body: bytes, shield: str | None = None) -> list[Any]:
    """The results of the ops. Raises `msgspec.DecodeError` for what is no answer to them."""
    return _heard(ops, _decode_results(body).results, shield)


def encode_answers(batches: Sequence[Sequence[Op]], answers: Sequence[list[Any] | Problem]) -> tuple[bytes, str | None]:
    """The body that answers several callers, each with its results or its problem, and the shield."""
    told = [
        {"problem": answer} if isinstance(answer, Problem) else {"results": _told(ops, answer)}
        for ops, answer in zip(batches, answers, strict=True)
    ]
    return shielded(_encode({"answers": told}))


def decode_answers(
    batches: Sequence[Sequence[Op]], body: bytes, shield: str | None = None
) -> list[list[Any] | Problem]:
    """What each caller is answered. Raises `msgspec.DecodeError` for what is no answer to them."""
    answers = _decode_answers(body).answers
    if len(answers) != len(batches):
        raise msgspec.DecodeError(f"{len(answers)} answers for {len(batches)} batches")
    return [
        _heard(ops, answer.results or [], shield) if answer.problem is None else answer.problem
        for ops, answer in zip(batches, answers, strict=True)
    ]


def _heard(ops: Sequence[Op], results: Sequence[Raw], shield: str | None) -> list[Any]:
    if len(results) != len(ops):
        raise msgspec.DecodeError(f"{len(results)} results for {len(ops)} ops")
    decoded = [_decode_result(op, result) for op, result in zip(ops, results, strict=True)]
    found: list[Any] = unshielded(decoded, shield)
    return found


def _decode_result(op: Op, result: Raw) -> Any:
    kind = type(op)
    if kind is Value:
        found = _found.decode(result)
        return None if found is None else found.value
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind.result)
    return decoder.decode(result)


_decoders: dict[type[Op], msgspec.json.Decoder[Any]] = {}


# ── half a surrogate pair ───────────────────────────────────────────────────────────────────────────

_HALVES = re.compile(rb"(?<!\\)((?:\\\\)*)\\u([dD][89a-fA-F])")  # not in \\ud8, which is a backslash and text


def shielded(body: bytes) -> tuple[bytes, str | None]:
    r"""The body with every escape such as `\ud800` put as a marker, and the marker; most bodies need none.

    Text cut off in the middle of an emoji holds half a surrogate pair. Python and botwire keep it; msgspec, like most
    readers of JSON, refuses a whole body for it.
    """
    if (rb"\ud" not in body and rb"\uD" not in body) or not _HALVES.search(body):  # the first alone is quick
        return body, None
    marker = secrets.token_hex(8)
    return _HALVES.sub(rb"\g<1>" + marker.encode() + rb"\g<2>", body), marker


def unshielded(found: Any, marker: str | None) -> Any:
    """Ops or results with their values as they were before `shielded`."""
    if marker is None:
        return found
    if not re.fullmatch("[0-9a-f]{16}", marker):
        raise InvalidInput(f"{SHIELD}: {marker[:40]!r} must be 16 hexadecimal digits")
    return _map_values(found, lambda raw: Raw(bytes(raw).replace(marker.encode(), rb"\u")))


def _map_values(found: Any, change: Callable[[Raw], Raw]) -> Any:
    if isinstance(found, Raw):
        return change(found)
    if isinstance(found, list | tuple):
        return type(found)(_map_values(each, change) for each in found)
    if isinstance(found, Struct):
        fields = {field: _map_values(getattr(found, field), change) for field in found.__struct_fields__}
        return msgspec.structs.replace(found, **fields)
    return found


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────

STATUS: Final[dict[str, int]] = {
    "InvalidInput": 400,
    "NotAuthenticated": 401,
    "AccessDenied": 403,
    "NotFound": 404,
    "Conflict": 409,
    "HistoryExpired": 410,
    "CursorExpired": 410,
    "TooLarge": 413,
    "RequestReused": 422,
    "RateLimited": 429,
    "BotWireError": 500,
    "StoreError": 500,
    "StoreCorrupt": 500,
    "StoreUnavailable": 503,
    "StoreBusy": 503,
    "StoreReadOnly": 503,
    "OutcomeUnknown": 504,
    "EmbedderFailed": 502,
    "QuotaExceeded": 507,
    "StoreFull": 507,
}
"""The HTTP status of each error; one that is not here has that of its nearest ancestor."""


class Problem(Struct, frozen=True, omit_defaults=True, rename={"kind": "type"}):
    """An error as a body of `application/problem+json`."""

    kind: str
    title: str
    status: int
    detail: str
    version: int | None = None
    """Of a `Conflict`: the current version."""
    retry_after: float | None = None
    """Seconds until it is worth another try."""
    request_id: str | None = None
    """What the server's log calls this request."""


def problem_of(error: BotWireError, request_id: str | None = None) -> Problem:
    """The body that tells of an error."""
    name = next(each.__name__ for each in type(error).__mro__ if each.__name__ in STATUS)
    return Problem(
        PROBLEM_TYPE + _words(name, "-"),
        _words(name, " ").capitalize(),
        STATUS[name],
        str(error),
        error.version if isinstance(error, Conflict) else None,
        getattr(error, "retry_after", None),
        request_id,
    )


class Answer(Struct, frozen=True, omit_defaults=True):
    """What one of several callers is answered: results, or a problem."""

    results: list[Raw] | None = None
    problem: Problem | None = None


class Answers(Struct, frozen=True):
    """The body of an answer to several callers, in the order of their batches."""

    answers: list[Answer]


_decode_answers = msgspec.json.Decoder(Answers).decode


def error_of(problem: Problem) -> BotWireError:
    """The error that a body tells of."""
    kind = _KINDS.get(problem.kind)
    if kind is None:
        return BotWireError(f"{problem.title}: {problem.detail}")
    if issubclass(kind, Conflict):
        return kind(problem.detail, problem.version or 0)
    if issubclass(kind, RateLimited):
        return kind(60 if problem.retry_after is None else problem.retry_after, problem.detail)
    return kind(problem.detail)


def _words(name: str, separator: str) -> str:
    """`NotFound` as `not-found`."""
    return re.sub("(?<!^)(?=[A-Z])", separator, name).lower()


_KINDS: Final[dict[str, type[BotWireError]]] = {
    PROBLEM_TYPE + _words(name, "-"): getattr(errors, name) for name in STATUS
}
