"""Connections: how many there may be, how long a request's head may take, and what becomes of those who read nothing.

uvicorn serves them; this is what it leaves open. Bodies have their own limits, in the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from botwire import wire
from botwire.errors import StoreUnavailable
from botwire.wire import Problem

from .metrics import Metrics
from .problems import refusal
from .service import Service
from .settings import Settings

MAX_HEAD: Final = 320 * 1024  # bytes without a piece of body: 64 KB, and the 256 KB that one read may bring
MAX_REFUSED: Final = 1_000  # connections being told that there are too many; more are cut off
FAREWELL: Final = 5.0  # seconds that such a one has to send its request and to take the answer
UNREAD: Final = 3  # times body_timeout, after which an answer that nobody reads is cut off
KEEP_ALIVE: Final = 75  # seconds that an idle connection is kept: longer than clients keep theirs


_OFFERS: Final = (b"upgrade", b"http2-settings")


class Bounds:
    """What all connections of a server share: its limits, its counts, and a clock that ticks once a second."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.now = asyncio.get_running_loop().time()
        self.refusing: set[Refusing] = set()

    async def watch(self, connections: Iterable[Any]) -> None:
        """Look after the connections for as long as the server runs."""
        loop = asyncio.get_running_loop()
        pause = min(1.0, self.settings.header_timeout / 4, self.settings.body_timeout / 4)
        while True:
            self.now = loop.time()
            for connection in list(connections):
                connection.look(self.now)
            await asyncio.sleep(pause)


class Connection(HttpToolsProtocol):
    """One connection. `serve` makes a subclass that knows its `bounds` and its `service`."""

    bounds: ClassVar[Bounds]
    service: ClassVar[Service]

    begun = 0.0
    """Since when a request's head has been coming in; 0: none is."""
    partial = False
    """Whether a request has not come in whole."""
    unused = 0
    """Bytes that came since the last piece of a body."""
    held = False
    """Whether a request is to be read again, without its offer to speak another protocol."""
    blocked: tuple[float, int] | None = None
    """Since when the other side has taken nothing, and how much waits for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take a connection, or have it told that there are too many."""
        bounds = self.bounds
        if len(self.connections) >= bounds.settings.max_connections:
            bounds.metrics.connections_refused += 1
            Refusing(bounds).take(transport)
            return
        bounds.metrics.connections += 1
        bounds.metrics.connections_made += 1
        self.begun = bounds.now
        super().connection_made(Counting(transport, bounds.metrics))  # type: ignore[arg-type]  # it acts as one

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self.bounds.metrics.connections -= 1
        self.begun = 0.0
        super().connection_lost(exc)

    # ── what comes in ──

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        self.bounds.metrics.received += len(data)
        self._unset_keepalive_if_required()
        self.feed(data)
        if self.partial:
            self.measure(len(data))

    def feed(self, data: bytes) -> None:
        """Have it parsed; the parser calls what is below."""
        left: bytes | None = data
        while left is not None:
            left = self.parse(left)

    def parse(self, data: bytes) -> bytes | None:
        """Have it parsed. Returns what is to be parsed in its place."""
        parser = self.parser
        assert parser is not None  # there is one for as long as something can come
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.held:
                return self.without_offer() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self.send_400_response("")
        return None

    def on_message_begin(self) -> None:
        """A request begins."""
        self.begun = self.bounds.now
        self.partial = True
        self.unused = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self.begun = 0.0
        if self.wants_upgrade():
            self.held = True
            return
        super().on_headers_complete()
        self.headers = []  # the app has its own: what comes behind the body is no header of this request

    def on_body(self, body: bytes) -> None:
        """A piece of its body is here."""
        self.unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It has come in whole."""
        self.partial = False
        if not self.held:
            super().on_message_complete()

    # ── offers to speak something else ──

    def wants_upgrade(self) -> bool:
        """Whether the request offers to go on in another protocol: the parser then takes its body for that."""
        parser = self.parser
        return (
            bool(parser.should_upgrade()) and parser.get_method() != b"CONNECT" and parser.get_http_version() == "1.1"
        )

    def without_offer(self) -> bytes:
        """The head as if nothing had been offered, which RFC 9110 lets a server do; Java's client offers HTTP/2."""
        head = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() not in _OFFERS]
                head += b"connection: %b\r\n" % b",".join(kept)
            elif name not in _OFFERS:
                head += b"%b: %b\r\n" % (name, value)
        self.held = False
        self.parser = httptools.HttpRequestParser(self)
        return head + b"\r\n"

    def measure(self, length: int) -> None:
        """Stop reading from somebody whose head, or whatever else is no body, never ends."""
        self.unused += length
        if self.unused > MAX_HEAD:
            self.turn_away(refusal(431, "the head of the request is too large"), "head")

    # ── turning away ──

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self.turn_away(refusal(400, "this is no HTTP request that can be read"), "malformed")

    def turn_away(self, problem: Problem, reason: str) -> None:
        """Answer with a problem, unless another answer is under way, and close."""
        self.bounds.metrics.refused(reason)
        self.begun, self.partial = 0.0, False
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's types say
        if cycle is None or cycle.response_complete:
            self.transport.write(answer(problem))
        self.transport.close()

    def look(self, now: float) -> None:
        """Close what has been silent for too long: called about once a second."""
        settings = self.bounds.settings
        if self.begun and now - self.begun > settings.header_timeout:
            waited = f"the head of the request did not come within {settings.header_timeout:g} seconds"
            self.turn_away(refusal(408, waited), "head")
        elif self.flow.write_paused:
            waiting = self.transport.get_write_buffer_size()
            if self.blocked is None or self.blocked[1] != waiting:
                self.blocked = (now, waiting)
            elif now - self.blocked[0] > UNREAD * settings.body_timeout:
                self.bounds.metrics.refused("unread")
                self.transport.abort()
        else:
            self.blocked = None


class Counting:
    """A transport that counts what it is given to send."""

    __slots__ = ("_metrics", "_write", "raw")

    def __init__(self, raw: asyncio.Transport, metrics: Metrics) -> None:
        self.raw = raw
        self._write = raw.write
        self._metrics = metrics

    def write(self, data: bytes) -> None:
        """Send, and count."""
        self._metrics.sent += len(data)
        self._write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class Refusing(asyncio.Protocol):
    """A connection too many: it is told so when its request has come, and is closed when it has had time to read it."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.transport: asyncio.Transport
        self.tail = b""
        self.told = False
        self.timer: asyncio.TimerHandle | None = None

    def take(self, transport: asyncio.Transport) -> None:
        """Take a connection over."""
        self.transport = transport
        transport.set_protocol(self)
        if len(self.bounds.refusing) >= MAX_REFUSED:
            transport.abort()
            return
        self.bounds.refusing.add(self)
        self.timer = asyncio.get_running_loop().call_later(FAREWELL, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the head: who is answered while still sending may never see the answer."""
        if self.told:
            return
        if b"\r\n\r\n" in self.tail + data:
            self.tell()
        self.tail = (self.tail + data)[-3:]

    def tell(self) -> None:
        """Answer, and close once the other side has closed or time is up."""
        self.told = True
        error = StoreUnavailable(
            f"the server has {self.bounds.settings.max_connections:,} connections open, its limit (max_connections): "
            "try again in a moment"
        )
        self.transport.write(answer(wire.problem_of(error), "retry-after: 1\r\n"))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.bounds.refusing.discard(self)
        if self.timer is not None:
            self.timer.cancel()


def answer(problem: Problem, headers: str = "") -> bytes:
    """A problem as the bytes of an HTTP answer, after which the connection is closed."""
    body = msgspec.json.encode(problem)
    head = (
        f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {wire.PROBLEM_MEDIA}\r\n"
        f"content-length: {len(body)}\r\n{headers}cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


def close_refused(bounds: Bounds) -> None:
    """Cut off those who are still being told that there are too many."""
    for each in list(bounds.refusing):
        with contextlib.suppress(RuntimeError):  # it is closed already
            each.transport.abort()
