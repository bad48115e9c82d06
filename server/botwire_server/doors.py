"""What every door is made of: where it stands, what it takes, what it answers; and how a request for it is read.

A module of doors has a `Doors`, whose `door` marks a handler: a function of a `Call` that answers a `Response`. The
same declaration routes requests (`routing`), reads their query and body (here), and describes them (`openapi`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from botwire import wire
from botwire.errors import BotWireError, InvalidInput, NotAuthenticated
from botwire.flows import Flow
from botwire.ops import Op

from .guard import Principal
from .parameters import Param
from .problems import Refused
from .service import Service

T = TypeVar("T")
Handler = Callable[["Call"], Awaitable[Response]]

NEVER: Final = 2**63 - 1  # a version that nothing has


class Door(Struct, frozen=True, kw_only=True):
    """A method at a path, what it takes and what it answers."""

    method: str
    path: str
    handler: Handler
    answers: Mapping[int, Any]
    """By status: the type of the JSON body, or `None` for none, or a `Media`."""
    errors: tuple[int, ...] = ()
    """The statuses of the problems that are particular to it, besides those that any request may meet."""
    query: Mapping[str, Param] = {}
    body: Any = None
    """The type of the JSON body that it takes, or a `Media`."""
    body_optional: bool = False
    conditional: bool = False
    """Whether it heeds If-Match and If-None-Match."""
    writes: bool = False
    """Whether it heeds Idempotency-Key."""
    public: bool = False
    """Whether it asks for no key."""
    lone_percent: bool = False
    """Whether a `%` that begins no escape stands for itself, in the path."""

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (self.handler.__doc__ or "").partition("\n")[0]


class Media(Struct, frozen=True):
    """A body that is not JSON: its media type, and what is in it."""

    type: str
    description: str


class Doors(list[Door]):
    """The doors of a module."""

    def door(self, method: str, path: str, **about: Any) -> Callable[[Handler], Handler]:
        """Mark the handler of a door."""

        def mark(handler: Handler) -> Handler:
            self.append(Door(method=method, path=path, handler=handler, **about))
            return handler

        return mark


class Call:
    """One request, as its handler sees it."""

    def __init__(self, request: Request, service: Service, door: Door, names: Mapping[str, str]) -> None:
        self.request = request
        self.service = service
        self.door = door
        self.names = names
        """The parts of the path, decoded."""
        self.address = request.client.host if request.client else ""
        self.principal = ANYBODY
        if not door.public:
            self.principal = service.identify(self.header("authorization"), self.address)
            request.scope["botwire.principal"] = self.principal  # for the gate and the access log
        if door.conditional:
            self._check_conditions()
        self.query = read_query(door.query, request.scope["query_string"])
        """The query's parameters, by the names of the op fields that they fill."""

    @property
    def namespace(self) -> str:
        """The namespace in the path."""
        return self.names["namespace"]

    def header(self, name: str) -> str | None:
        """A header that may come once; the gate has refused requests where one came twice."""
        return self.request.headers.get(name)

    @property
    def request_id(self) -> str | None:
        """What makes a write one that can be repeated: the header Idempotency-Key."""
        return check_request_id(self.header(wire.REQUEST_ID))

    def check_key(self) -> None:
        """Raise `NotAuthenticated` if the caller's key has been revoked since the request began."""
        if not self.service.keyring.still_valid(self.principal):
            raise NotAuthenticated("this API key has been revoked, changed, or has expired")

    # ── ops ──

    async def execute(self, ops: Sequence[Op]) -> list[Any]:
        """Run ops, all or nothing."""
        request_id = self.request_id if self.door.writes and any(op.access != "read" for op in ops) else None
        return await self.service.execute(self.principal, ops, request_id)

    async def ask(self, op: Op) -> Any:
        """Run one op."""
        return (await self.execute([op]))[0]

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow: see `botwire.flows`."""
        try:
            ops = next(flow)
            while True:
                try:
                    results = await self.execute(ops)
                except BotWireError as error:
                    ops = flow.throw(error)
                else:
                    ops = flow.send(results)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # the flow's T

    # ── bodies ──

    async def body(self, kind: type[T]) -> T:
        """The request's JSON body. Raises `InvalidInput` for what is none of this kind."""
        return read_body(await self.raw_body(), kind)

    async def raw_body(self) -> bytes:
        """The request's body, which says that it is JSON, or says nothing."""
        check_media(self.header("content-type"))
        return await self.request.body()

    # ── preconditions ──

    def _check_conditions(self) -> None:
        """Refuse what is no ETag, whatever becomes of the request otherwise."""
        for name in ("If-Match", "If-None-Match"):
            if (text := self.header(name)) is not None:
                entity_tags(name, text)

    @property
    def if_version(self) -> int | None:
        """The version that a write may replace: from If-Match, or 0 (nothing) from `If-None-Match: *`."""
        match, none_match = self.header("if-match"), self.header("if-none-match")
        if none_match is not None:
            if none_match.strip() != "*":
                raise InvalidInput("of a write, If-None-Match takes * alone: it must not replace anything")
            return 0 if match is None else NEVER  # there must be something, and nothing
        if match is None:
            return None
        tags = entity_tags("If-Match", match)
        if len(tags) != 1:
            raise InvalidInput("If-Match takes one ETag here")
        return version_of(tags[0])

    @property
    def must_exist(self) -> bool:
        """Whether `If-Match: *` came: there must be something, whatever its version."""
        return (self.header("if-match") or "").strip() == "*" and self.header("if-none-match") is None

    def is_current(self, version: int) -> bool:
        """Whether the caller has this version already (If-None-Match)."""
        known = self.header("if-none-match")
        if known is None:
            return False
        return known.strip() == "*" or f'"{version}"' in [
            tag.removeprefix("W/") for tag in entity_tags("If-None-Match", known)
        ]

    def is_wanted(self, version: int) -> bool:
        """Whether a read may answer this version (If-Match)."""
        wanted = self.header("if-match")
        return wanted is None or wanted.strip() == "*" or f'"{version}"' in entity_tags("If-Match", wanted)


ANYBODY: Final = Principal("", "")
"""Who knocks at a public door."""


def check_request_id(request_id: str | None) -> str | None:
    """A request id as it came. Raises `InvalidInput` for what could not be a header."""
    if request_id is not None and not _visible(request_id):
        raise InvalidInput("a request id (Idempotency-Key) must be 1 to 255 visible ASCII characters")
    return request_id


_visible = re.compile("[\x21-\x7e]{1,255}").fullmatch
_tag = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_tags = re.compile(rf"\s*{_tag}(?:\s*,\s*{_tag})*\s*").fullmatch


def entity_tags(header: str, text: str) -> list[str]:
    """The ETags of a header, none for `*`. Raises `InvalidInput`."""
    if text.strip() == "*":
        return []
    if not _tags(text):
        raise InvalidInput(f'{header}: {text[:80]!r} is no ETag; write it as it came, in quotes: "3"')
    return re.findall(_tag, text)


def version_of(tag: str) -> int:
    """The version that an ETag names; one that is not ours, or weak, names a version that nothing has."""
    return int(tag[1:-1]) if re.fullmatch('"[1-9][0-9]{0,17}"', tag) else NEVER


# ── the query ───────────────────────────────────────────────────────────────────────────────────────


def decoded(text: bytes, what: str, *, lone_percent: bool = False) -> str:
    """Text with its percent escapes resolved. Raises `InvalidInput` for what is no UTF-8."""
    if not lone_percent and b"%" in text and re.search(rb"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidInput(f"{what}: a % must be followed by two hexadecimal digits; write % itself as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is no UTF-8: {error}") from error


def read_query(known: Mapping[str, Param], text: bytes) -> dict[str, Any]:
    """The parameters of a query. Raises `InvalidInput` for unknown ones, repeated ones, and wrong ones."""
    if not text:
        return {}
    given: dict[str, list[str]] = {}
    for part in text.split(b"&"):
        if part:
            name, _, value = (decoded(side.replace(b"+", b" "), "the query") for side in part.partition(b"="))
            given.setdefault(name, []).append(value)
    found: dict[str, Any] = {}
    for name, values in given.items():
        param = known.get(name)
        if param is None:
            there = ", ".join(known) or "none"
            raise InvalidInput(f"unknown parameter {name[:80]!r} in the query: there are {there}")
        if len(values) > 1 and not param.repeated:
            raise InvalidInput(f"{name} came {len(values)} times in the query: send it once")
        found[param.field or name] = param.read(name, values if param.repeated else values[0])
    return found


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────

_JSON = re.compile(
    r"(?i)\s*(application/(json|[\w.-]+\+json|x-www-form-urlencoded))?\s*(;\s*charset=\"?utf-8\"?\s*)?;?"
)


def check_media(content_type: str | None, others: Sequence[str] = ()) -> None:
    """Refuse a body that says to be something else than JSON.

    `application/x-www-form-urlencoded` passes, for that is what `curl -d` says of everything. It opens nothing to web
    pages: browsers name their `Origin` with it, and the gate looks at that.
    """
    if not content_type or _JSON.fullmatch(content_type):
        return
    if content_type.partition(";")[0].strip().lower() in others:
        return
    wanted = " or ".join(("application/json", *others))
    raise Refused(415, f"Content-Type: {content_type[:80]!r} is not taken here: send {wanted}, in UTF-8")


def given(field: T | UnsetType) -> T | None:
    """A field of a body; `None` if it was left out."""
    return None if isinstance(field, UnsetType) else field


def read_body(body: bytes, kind: type[T]) -> T:
    """A JSON body as a struct. Raises `InvalidInput`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error.__cause__, BotWireError):  # a struct has refused its fields
            raise error.__cause__ from None
        shield, marker = wire.shielded(body)
        if marker is None:
            raise InvalidInput(f"the body cannot be used: {error}") from error
    try:
        found: T = wire.unshielded(msgspec.json.decode(shield, type=kind), marker)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body cannot be used: {error}") from error
    return found
