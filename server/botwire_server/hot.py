"""The frequent requests, answered in front of the router.

Reading or setting one item, and `POST /v1/execute`, are answered where uvicorn has parsed them: without a scope, a
task or a message, which cost more than all the rest. The same service is asked, the same structs are encoded, and the
gate's own checks are run. Whatever is unusual about a request sends it on to the app, which cannot tell the difference;
and so it is with its answer: a test sends each request both ways and compares the bytes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, TypeAlias

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from botwire import flows, wire
from botwire.errors import BotWireError, NotFound
from botwire.ops import Get, Item, Op, Put, Stamp, Value
from botwire.stores.sqlite.async_store import AsyncSQLiteStore
from botwire.stores.sqlite.commits import Request

from . import answers, items, published, tracing
from .connections import Connection
from .doors import check_request_id, decoded, read_body
from .gate import ALWAYS, NO_STORE, Rules, Turned, new_request_id
from .guard import Principal
from .problems import Refused, of_error, unexpected
from .service import Service

MAX_DIGITS: Final = 5  # of a body's length: what has more goes to the app, which takes it piece by piece

_SEGMENT: Final = rb"([\w.~!$&'()*+,;=:@%-]+)"
_path = re.compile(rb"/(memory|v1/namespaces)/%b(/items)?/%b" % (_SEGMENT, _SEGMENT)).fullmatch

READING: Final = frozenset(
    b"host user-agent accept accept-encoding accept-language connection content-type authorization traceparent "
    b"tracestate".split()
)
"""Headers that change nothing about the answer to a read, or that are heeded here."""
WRITING: Final = READING | {b"content-length", b"idempotency-key"}

Told: TypeAlias = tuple[int, bytes, bytes]
"""A status, headers of the answer's own, and its body."""
Tell: TypeAlias = Callable[[Any], Told]
"""From the results to what is told. Raises `NotFound`."""
Asked: TypeAlias = tuple[list[Op], Tell]
Door: TypeAlias = Callable[[str, str, bytes], Asked]
"""From namespace, key and body to what is asked. Raises what makes the app answer instead."""


# ── what is asked, and what is told ─────────────────────────────────────────────────────────────────


def _published_get(namespace: str, key: str, _body: bytes) -> Asked:
    def tell(results: list[Any]) -> Told:
        if results[0] is None:
            raise _not_there(namespace, key)
        return 200, b"", _encode(published.PublishedEntry(namespace, key, results[0]))

    return [Value(namespace, key)], tell


def _published_set(namespace: str, key: str, body: bytes) -> Asked:
    raw = published.meant(read_body(body, published.PublishedValue).value)

    def tell(_results: list[Any]) -> Told:
        return 200, b"", _encode(published.Stored(namespace, key, stored=True, bytes=len(bytes(raw))))

    return [Put(namespace, key, raw)], tell


def _get_item(namespace: str, key: str, _body: bytes) -> Asked:
    def tell(results: list[Any]) -> Told:
        found: Item | None = results[0]
        if found is None:
            raise _not_there(namespace, key)
        return 200, b'etag: "%d"\r\n' % found.version, _encode(found)

    return [Get(namespace, key)], tell


def _put_item(namespace: str, key: str, body: bytes) -> Asked:
    new = read_body(body, items.NewItem)

    def tell(results: list[Any]) -> Told:
        stamp: Stamp = results[0]
        return answers.put_status(stamp), b'etag: "%d"\r\n' % stamp.version, _encode(stamp)

    return [Put(namespace, key, new.value, new.ttl, None, flows.meta_of(new.tags, new.author), new.history)], tell


def _execute(_namespace: str, _key: str, body: bytes) -> Asked:
    ops = wire.decode_ops(body)

    def tell(results: list[Any]) -> Told:
        text, shield = wire.encode_results(ops, results)
        return 200, b"" if shield is None else b"%b: %b\r\n" % (_SHIELD, shield.encode()), text

    return ops, tell


def _not_there(namespace: str, key: str) -> NotFound:
    return NotFound(f"no {key!r} in {namespace!r}")


DOORS: Final[dict[tuple[bytes, bytes, bytes | None], Door]] = {
    (b"GET", b"memory", None): _published_get,
    (b"PUT", b"memory", None): _published_set,
    (b"GET", b"v1/namespaces", b"/items"): _get_item,
    (b"PUT", b"v1/namespaces", b"/items"): _put_item,
}
"""By method and path."""

_encode = msgspec.json.Encoder().encode
_EXECUTE: Final = wire.EXECUTE.encode()
_SHIELD: Final = wire.SHIELD.lower().encode()


# ── what the connections of a server share ──────────────────────────────────────────────────────────


class Desk:
    """A service, and what the gate says to requests and answers."""

    def __init__(self, service: Service) -> None:
        settings, store = service.settings, service.store
        self.service = service
        self.rules = Rules(service)
        self.limited = settings.requests_per_second > 0
        self.max_body = settings.max_body
        self.store = store if isinstance(store, AsyncSQLiteStore) else None
        self.is_open = (
            self.store is not None
            and not (settings.access_log or settings.trusted_proxies or settings.allowed_origins)
            and tracing.tracer() is None
        )
        self.takes_writes = not settings.audit
        self._shared: tuple[object, bytes] = None, b""

    def takes_host(self, host: bytes) -> bool:
        """Whether requests to this name of the server are answered."""
        rules = self.rules
        if rules.is_known_host(host) or not rules.wants_host:
            return True
        try:
            rules.check_host(host)
        except Turned:
            return False
        return True

    def headers(self, request_id: str, principal: Principal | None, address: str) -> bytes:
        """What the gate adds to an answer's headers."""
        own = _ALWAYS % request_id.encode()
        if self.limited and principal is not None:
            own += _lines(self.service.limits.headers(principal, address))
        return own

    def shared(self, default: list[tuple[bytes, bytes]]) -> bytes:
        """The headers that uvicorn gives to every answer, as bytes; it makes new ones once a second."""
        if self._shared[0] is not default:
            self._shared = default, _lines(default)
        return self._shared[1]


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


_ALWAYS: Final = _lines([*ALWAYS, (b"x-request-id", b"%b"), NO_STORE])


# ── a connection ────────────────────────────────────────────────────────────────────────────────────


class Writing:
    """What stands in the place of uvicorn's cycle while a write is under way, so that what comes meanwhile waits."""

    def __init__(self) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True
        self.message_event = self

    def set(self) -> None:
        """Nobody waits for the rest of this request: it is here."""


class HotProtocol(Connection):
    """A connection that answers frequent requests itself."""

    desk: ClassVar[Desk]

    door: Door | None = None
    """What the request is that is coming in, if it is a frequent one."""
    fresh = False
    """Whether nothing was answered yet of what was read last: who sends many requests at once waits his turn."""

    def __init_subclass__(cls) -> None:
        """Have the connections of a server share a desk."""
        if hasattr(cls, "service"):
            cls.desk = Desk(cls.service)

    # ── uvicorn's callbacks ──

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self.fresh = True
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins: as in `Connection`, but its scope is made when it is needed."""
        self.begun = self.bounds.now
        self.partial = True
        self.unused = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.door = None

    def on_headers_complete(self) -> None:
        """Its head is here."""
        if self.wants_upgrade():
            self.begun, self.held = 0.0, True
            return
        self.begun = 0.0
        self.body = b""
        self.door = self.recognised()
        if self.door is None:
            self.pass_on()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is here."""
        if self.door is None:
            super().on_body(body)
        else:
            self.unused = 0
            self.body += body

    def on_message_complete(self) -> None:
        """It has come in whole."""
        if self.door is None:
            super().on_message_complete()
            return
        door, self.door, self.partial = self.door, None, False
        if not self.serve(door):
            self.pass_on()
            super().on_message_complete()

    def look(self, now: float) -> None:
        """What is slow to come is the app's: it has an eye on that."""
        if self.door is not None:
            self.pass_on()
        super().look(now)

    def shutdown(self) -> None:
        """Answer what has begun to come, then close."""
        if self.door is not None:
            self.pass_on()
        super().shutdown()

    def pass_on(self) -> None:
        """Have the app answer, as if nobody had looked at the request before."""
        self.door = None
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        if self.body:
            HttpToolsProtocol.on_body(self, self.body)

    # ── is it a frequent one? ──

    def recognised(self) -> Door | None:
        """The door of a request, if it is frequent and plain."""
        desk, parser = self.desk, self.parser
        assert parser is not None  # it calls us
        if not (self.fresh and desk.is_open) or self.flow.write_paused or self.is_busy():
            return None
        door = self.find(method := parser.get_method())
        self.seen = seen = dict(self.headers)
        if (
            door is None
            or len(seen) != len(self.headers)
            or not seen.keys() <= (READING if method == b"GET" else WRITING)
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or not desk.takes_host(seen.get(b"host", b""))
            or (method != b"GET" and not self.has_plain_body(seen))
        ):
            return None
        return door

    def is_busy(self) -> bool:
        """Whether an answer is under way: then this request waits until it is complete."""
        cycle: Any = self.cycle  # `None` at first, whatever uvicorn's annotation says
        return cycle is not None and not cycle.response_complete

    def find(self, method: bytes) -> Door | None:
        """The door at the request's path; its names are kept."""
        if self.url == _EXECUTE:
            self.names = "", ""
            return _execute if method == b"POST" else None
        found = _path(self.url)
        if found is None or b"bw_" in self.url:  # an API key has no place there: the gate says so
            return None
        kind, namespace, middle, key = found.groups()
        try:
            self.names = _decoded(namespace, "namespace"), _decoded(key, "key")
        except BotWireError:
            return None
        return DOORS.get((method, kind, middle))

    def has_plain_body(self, seen: dict[bytes, bytes]) -> bool:
        """Whether the body is JSON, small, and of a known length."""
        length = seen.get(b"content-length", b"")
        return (
            0 < len(length) <= MAX_DIGITS
            and int(length) <= self.desk.max_body
            and seen.get(b"content-type", b"application/json") == b"application/json"
        )

    # ── answering ──

    def serve(self, door: Door) -> bool:
        """Answer a request, now or when its write is committed. False: the app should."""
        store = self.desk.store
        assert store is not None  # or nothing is recognised
        try:
            ops, tell = door(*self.names, self.body)
            request_id = check_request_id(self.header(b"idempotency-key"))
        except (BotWireError, Refused):
            return False
        is_get = _is_quick(ops)
        if is_get and not store.store.reads_at_once:
            return False
        if not is_get and not (self.desk.takes_writes and any(op.access != "read" for op in ops)):
            return False
        self.fresh = False
        principal: Principal | None = None
        try:
            principal = self.desk.service.identify(self.header(b"authorization"), self.address)
            if is_get:
                self.read(store, principal, ops, tell)
            else:
                self.write(store, principal, ops, tell, request_id)
        except Exception as error:  # noqa: BLE001  # answered as the router does
            self.refuse(error, principal)
        return True

    def header(self, name: bytes) -> str | None:
        """A header as text."""
        value = self.seen.get(name)
        return None if value is None else value.decode("latin-1")

    def read(self, store: AsyncSQLiteStore, principal: Principal, ops: list[Op], tell: Tell) -> None:
        """Answer a read."""
        service, begun = self.desk.service, time.perf_counter()
        try:
            results = store.store.execute(service.admit(principal, ops))
        except BotWireError as error:
            service.settled(principal, ops, error, time.perf_counter() - begun)
            raise
        service.settled(principal, ops, None, time.perf_counter() - begun)
        self.tell(tell(results), principal)

    def write(
        self, store: AsyncSQLiteStore, principal: Principal, ops: list[Op], tell: Tell, request_id: str | None
    ) -> None:
        """Have a write committed, and answer then."""
        service, begun = self.desk.service, time.perf_counter()
        try:
            admitted = service.admit(principal, ops)
        except BotWireError as error:
            service.settled(principal, ops, error, time.perf_counter() - begun)
            raise
        own_id = None if request_id is None else f"{principal.id}:{request_id}"
        cycle: Any = Writing()

        def done(request: Request) -> None:
            error = request.error
            if error is None or isinstance(error, BotWireError):
                service.settled(principal, ops, error, time.perf_counter() - begun)
            self.written(request, cycle, principal, tell)

        store.submit(Request(admitted, own_id), done)
        self.cycle = cycle

    def written(self, request: Request, cycle: Writing, principal: Principal, tell: Tell) -> None:
        """Answer a write that is committed, or was refused."""
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return
        error = request.error
        try:
            told = None if error is not None else tell(request.results)
        except Exception as mistake:  # noqa: BLE001  # answered as the router does
            told, error = None, mistake
        if told is not None:
            self.tell(told, principal, keep=cycle.keep_alive)
        elif isinstance(error, Exception):  # a writing thread is not interrupted
            self.refuse(error, principal, keep=cycle.keep_alive)

    def tell(self, told: Told, principal: Principal, *, keep: bool = True) -> None:
        """Send an answer."""
        status, own, body = told
        headers = b"%bcontent-length: %d\r\ncontent-type: application/json\r\n" % (own, len(body))
        headers += self.desk.headers(new_request_id(), principal, self.address)
        self.send(status, headers, body, keep=keep)

    def refuse(self, error: Exception, principal: Principal | None, *, keep: bool = True) -> None:
        """Answer with a problem."""
        request_id = new_request_id()
        scope = {"headers": [], "botwire.request_id": request_id}  # none of a frequent request's says how to refuse it
        response = of_error(error, scope) if isinstance(error, BotWireError) else unexpected(error, scope)
        given = response.raw_headers
        who = None if any(name == b"ratelimit" for name, _ in given) else principal
        headers = _lines(given) + self.desk.headers(request_id, who, self.address)
        self.send(response.status_code, headers, bytes(response.body), keep=keep)

    def send(self, status: int, headers: bytes, body: bytes, *, keep: bool) -> None:
        """Send an answer as uvicorn does: its line, the headers that all have, then these."""
        end = b"\r\n" if keep else b"connection: close\r\n\r\n"
        shared = self.desk.shared(self.server_state.default_headers)
        self.transport.write(b"%b%b%b%b%b" % (STATUS_LINE[status], shared, headers, end, body))
        if not keep:
            self.transport.close()
        self.on_response_complete()


def _decoded(text: bytes, what: str) -> str:
    return decoded(text, what) if b"%" in text else text.decode()


def _is_quick(ops: list[Op]) -> bool:
    """Whether this is a single get, which waits for nothing."""
    if len(ops) != 1:
        return False
    op = ops[0]
    return type(op) is Value or (type(op) is Get and op.as_of is None and op.as_of_time is None)
