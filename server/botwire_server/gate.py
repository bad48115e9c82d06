"""What every request passes before anything else looks at it: an ASGI middleware, the outermost one.

It refuses what no door should see: requests of web pages (DNS rebinding, CSRF), headers that can be read in two ways,
bodies that are too large, too slow or compressed, keys in URLs. And it gives each request an id, and each answer the
headers that keep browsers from making more of it than data.

Frequent requests pass through here too, so it looks at the headers once, and makes nothing that is not needed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeAlias

import msgspec
from starlette.requests import ClientDisconnect

from botwire import wire
from botwire.errors import AccessDenied, BotWireError, InvalidInput, TooLarge

from . import logs
from .guard import Principal
from .keys import is_local, redacted
from .problems import Refused, refusal
from .service import Service

log = logging.getLogger("botwire.server.gate")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

MIN_RATE: Final = 1_024  # bytes a second that a body must bring on average, after its first `body_timeout`
LINGER: Final = 2.0  # seconds in which a body that was refused may still come, so that its sender reads why
MAX_GOOD_HOSTS: Final = 64  # values of Host remembered
PROBES: Final = (b"/healthz", b"/readyz")
"""What tells nothing, and is asked for by address."""
PREFLIGHT_AGE: Final = 600  # seconds that a browser remembers what it may do

SINGLE: Final = frozenset(
    b"authorization botwire-shield content-encoding content-length content-type host idempotency-key if-match "
    b"if-none-match last-event-id origin sec-fetch-site transfer-encoding x-request-id".split()
)
"""Headers that may come once: of two, one reader takes the first and another the last."""

_sane_id = re.compile(b"[A-Za-z0-9._-]{1,64}").fullmatch
_visible = re.compile(b"[\x21-\x7e]{1,255}").fullmatch
_key_in_url = re.compile(b"bw_[0-9a-f]{12}_[0-9a-f]{16}").search
_key_parameter = re.compile(rb"(?i)(?:^|&)(?:api[-_]?key|access[-_]?token|authorization)=").search
_import_path = re.compile(b"/v1/namespaces/[^/]+/import/?").fullmatch
_host = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?").fullmatch

ALWAYS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
"""What each answer bears."""
NO_STORE: Final = (b"cache-control", b"no-store")
"""What it bears unless it says otherwise."""

METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
SENT: Final = (
    b"Accept, Authorization, Botwire-Shield, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, "
    b"X-Request-Id"
)
EXPOSED: Final = b"ETag, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, Botwire-Shield"
SIMPLE_FORMS: Final = (b"text/plain", b"multipart/form-data")
"""What a form of an old browser, one that names no Origin, could post as JSON."""


new_request_id = map((secrets.token_hex(4) + "-%x").__mod__, itertools.count(1)).__next__
"""An id for a request that brought none."""


class Turned(Exception):
    """A request that is turned away: what it is told, and the word under which it is counted."""

    def __init__(self, reason: str, error: BotWireError | Refused) -> None:
        super().__init__(str(error))
        self.reason = reason
        self.error = error


class Rules:
    """What no door should see, as functions of headers: for the gate, and for what answers in front of it."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.keyring = service.keyring
        names = (*settings.allowed_hosts, settings.host, "localhost")
        self._names = frozenset(name.strip("[]").lower().encode() for name in names)
        self._origins = frozenset(origin.encode() for origin in settings.allowed_origins)
        self._names_hosts = bool(settings.allowed_hosts)
        self._any_host = "*" in settings.allowed_hosts
        self._good_hosts: set[bytes] = set()

    @property
    def wants_host(self) -> bool:
        """Whether the Host is looked at: without keys, and wherever hosts are named."""
        return (self._names_hosts or not self.keyring.required) and not self._any_host

    def is_known_host(self, host: bytes) -> bool:
        """Whether this Host has passed before: the quick answer."""
        return host in self._good_hosts

    def check_host(self, host: bytes | None) -> None:
        """Only names of this machine, or such as are allowed: a web page can have any other name point here."""
        if host in self._good_hosts:
            return
        found = None if host is None else _host(host)
        if host is None or found is None:
            raise Turned("host", InvalidInput("Host: the header is missing, or no host name"))
        name = (found[1] or found[2]).lower()
        if name not in self._names and not is_local(name.decode()):
            raise Turned(
                "host",
                AccessDenied(
                    f"Host: this server does not answer as {redacted(name.decode())[:200]!r}, so that no web page "
                    "reaches it by a name of its own; if the name is right, allow it with --allowed-hosts"
                ),
            )
        if len(self._good_hosts) < MAX_GOOD_HOSTS:
            self._good_hosts.add(host)

    def check_origin(self, seen: dict[bytes, bytes]) -> None:
        """Only pages of allowed origins, or of this very server."""
        origin = seen.get(b"origin")
        if origin is None:
            raise Turned(
                "origin",
                AccessDenied("Sec-Fetch-Site: web pages of other sites cannot call this server without an Origin"),
            )
        scheme, _, own = origin.partition(b"://")
        if self.allows_origin(origin) or (scheme in (b"http", b"https") and own == seen.get(b"host")):
            return
        raise Turned(
            "origin",
            AccessDenied(
                f"Origin: web pages of {redacted(origin.decode('latin-1'))[:200]!r} cannot call this server; if they "
                "should, allow them with --allowed-origins"
            ),
        )

    def allows_origin(self, origin: bytes | None) -> bool:
        """Whether pages of this origin may call."""
        return origin in self._origins


class Gate:
    """The outermost middleware of a server, but for what only measures."""

    def __init__(self, app: App, service: Service) -> None:
        self.app = app
        self.service = service
        self.settings = service.settings
        self.rules = Rules(service)
        self._proxies = [ip_network(each) for each in self.settings.trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        seen: dict[bytes, bytes] = {}
        double = b""
        for name, value in scope["headers"]:
            if name in SINGLE:
                if name in seen:
                    double = name
                seen[name] = value
        given = seen.get(b"x-request-id")
        request_id = given.decode() if given is not None and _sane_id(given) else new_request_id()
        scope["botwire.headers"] = seen
        scope["botwire.request_id"] = request_id
        logs.request_id.set(request_id)
        answer = Answer(self, scope, send, seen.get(b"origin"))
        try:
            if self._proxies:
                self._believe_proxy(scope, seen)
            self._check(scope, seen, double)
            if scope["method"] == "OPTIONS" and await self._preflight(scope, answer):
                return
            body = self._body(scope, seen, receive, answer)
        except Turned as turned:
            await answer.turn_away(turned, Body(receive, None, 0.0, answer) if _has_body(seen) else None)
            return
        try:
            await self.app(scope, body, answer.send)
        except ClientDisconnect:
            log.debug("the client went away")

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The server's beginning and end pass; there are no web sockets here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    # ── what is refused ──

    def _check(self, scope: Scope, seen: dict[bytes, bytes], double: bytes) -> None:
        """Raise what no door should see."""
        if double:
            raise Turned("headers", InvalidInput(f"the header {double.decode()} came twice: send it once"))
        path, query = _path(scope), scope["query_string"]
        if self.rules.wants_host and path not in PROBES:
            self.rules.check_host(seen.get(b"host"))
        site = seen.get(b"sec-fetch-site")
        if b"origin" in seen or (site is not None and site not in (b"same-origin", b"none")):
            self.rules.check_origin(seen)
        if b"bw_" in path or (query and (b"bw_" in query or _key_parameter(query))):
            _check_url(path, query)
        key = seen.get(b"idempotency-key")
        if key is not None and not _visible(key):
            raise Turned("headers", InvalidInput("Idempotency-Key must be 1 to 255 visible ASCII characters"))
        if b"content-encoding" in seen and seen[b"content-encoding"].strip().lower() not in (b"identity", b""):
            raise Turned("encoding", _compressed())

    # ── CORS ──

    async def _preflight(self, scope: Scope, answer: Answer) -> bool:
        """Answer a browser that asks whether a page may call; without a key, for browsers send none here."""
        if not self.rules.allows_origin(answer.origin):
            return False
        if all(name != b"access-control-request-method" for name, _ in scope["headers"]):
            return False
        headers = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", SENT),
            (b"access-control-max-age", b"%d" % PREFLIGHT_AGE),
        ]
        await answer.send({"type": "http.response.start", "status": 204, "headers": headers})
        await answer.send({"type": "http.response.body", "body": b""})
        return True

    # ── bodies ──

    def _body(self, scope: Scope, seen: dict[bytes, bytes], receive: Receive, answer: Answer) -> Receive:
        """What the app receives from. Raises `TooLarge` for a body that says that it is."""
        length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
        if length is None and coding is None:
            return receive
        if length is not None and coding is not None:
            raise Turned("headers", InvalidInput("Content-Length and Transfer-Encoding: a request has one of them"))
        if coding is not None and coding.lower() != b"chunked":
            raise Turned("headers", InvalidInput("Transfer-Encoding: only chunked is taken"))
        if length is not None and not (length.isdigit() and len(length) < 20):
            raise Turned("headers", InvalidInput("Content-Length must be a whole number"))
        if scope["method"] == "POST" and not self.service.keyring.required:
            _check_form(seen.get(b"content-type", b""))
        most = None if _is_import(scope) else self.settings.max_body
        if length is not None and most is not None and int(length) > most:
            raise Turned("body", _too_large(most))
        return receive if length == b"0" else Body(receive, most, self.settings.body_timeout, answer)

    # ── proxies ──

    def _believe_proxy(self, scope: Scope, seen: dict[bytes, bytes]) -> None:
        """Take address and scheme from a trusted proxy's headers, and from nobody else's."""
        client = scope.get("client")
        if client is None or not self._is_proxy(client[0]):
            return
        hops: list[str] = []
        scheme = ""
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops += value.decode("latin-1").split(",")
            elif name == b"x-forwarded-proto":
                scheme = value.decode("latin-1").rpartition(",")[2].strip().lower()
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            scope["client"] = (address, 0)
            if not self._is_proxy(address):
                break
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        if scheme == "http" and b"authorization" in seen and not self.settings.insecure_http:
            error = AccessDenied("this request reached the proxy without TLS, and its API key in the open: use https")
            raise Turned("proxy", error)

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


# ── one answer ──────────────────────────────────────────────────────────────────────────────────────


class Answer:
    """The answer to one request: what the app sends, with the headers that each answer bears."""

    __slots__ = ("gate", "origin", "raw_send", "scope", "started", "turned")

    def __init__(self, gate: Gate, scope: Scope, send: Send, origin: bytes | None) -> None:
        self.gate = gate
        self.scope = scope
        self.raw_send = send
        self.origin = origin
        self.started = False
        self.turned = False

    async def send(self, message: Message) -> None:
        """Send on what the app sends; nothing of it, once the request was turned away."""
        if self.turned:
            return
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = self._headers(message.get("headers", ()))
        await self.raw_send(message)

    def _headers(self, given: Any) -> Headers:
        settings, scope = self.gate.settings, self.scope
        headers = [*given, *ALWAYS, (b"x-request-id", scope["botwire.request_id"].encode())]
        if all(name != b"cache-control" for name, _ in given):
            headers.append(NO_STORE)
        if settings.allowed_origins:
            headers += self._cors()
        if settings.requests_per_second:
            principal: Principal | None = scope.get("botwire.principal")
            if principal is not None and all(name != b"ratelimit" for name, _ in given):
                client = scope.get("client")
                headers += self.gate.service.limits.headers(principal, client[0] if client else "")
        return headers

    def _cors(self) -> Headers:
        """For a cache that the answer depends on the origin; for an allowed one that its page may read it."""
        vary = (b"vary", b"Origin")
        if self.origin is None or not self.gate.rules.allows_origin(self.origin):
            return [vary]
        return [
            vary,
            (b"access-control-allow-origin", self.origin),
            (b"access-control-expose-headers", EXPOSED),
        ]

    async def turn_away(self, turned: Turned, body: Body | None = None) -> None:
        """Answer with a problem, in the app's place. A body that is still to come is read for a moment, and dropped."""
        if self.turned:
            return
        self.gate.service.metrics.refused(turned.reason)
        log.debug("turned away: %s", turned.reason)
        if self.started:  # too late to say why: the answer ends unfinished
            self.turned = True
            return
        problem = self._problem(turned.error)
        content = msgspec.json.encode(problem)
        headers = [(b"content-type", wire.PROBLEM_MEDIA.encode()), (b"content-length", b"%d" % len(content))]
        if isinstance(turned.error, Refused):
            headers += [(name.lower().encode(), value.encode()) for name, value in turned.error.headers.items()]
        if body is not None or turned.reason == "headers":  # then what follows may not be a request at all
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        self.turned = True
        content = b"" if self.scope["method"] == "HEAD" else content
        await self.raw_send({"type": "http.response.body", "body": content, "more_body": body is not None})
        if body is not None:
            await body.drop()
            await self.raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    def _problem(self, error: BotWireError | Refused) -> wire.Problem:
        request_id: str = self.scope["botwire.request_id"]
        if isinstance(error, Refused):
            return refusal(error.status, str(error), request_id)
        return wire.problem_of(error, request_id)


class Body:
    """A request's body as the app receives it: counted and timed."""

    __slots__ = ("answer", "count", "ended", "most", "patience", "receive", "waited")

    def __init__(self, receive: Receive, most: int | None, patience: float, answer: Answer) -> None:
        self.receive = receive
        self.most = most
        self.patience = patience
        self.answer = answer
        self.count = 0
        self.waited = 0.0
        self.ended = False

    async def __call__(self) -> Message:
        """The next piece. What is too large or too slow is answered here; the app sees its client gone."""
        if self.ended:
            return {"type": "http.disconnect"} if self.answer.turned else await self.receive()
        try:
            message = await self._next()
        except TimeoutError:
            slow = Refused(HTTPStatus.REQUEST_TIMEOUT, f"the body came too slowly: {self.count:,} bytes so far")
            return await self._turn_away("slow", slow)
        if message["type"] != "http.request":
            self.ended = True
            return message
        self.count += len(message.get("body", b""))
        if self.most is not None and self.count > self.most:
            return await self._turn_away("body", _too_large(self.most))
        self.ended = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        """The next piece, in time: only the waiting for it counts, not what the app does between two."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        allowed = min(self.patience, self.patience + self.count / MIN_RATE - self.waited)
        async with asyncio.timeout_at(begun + allowed):
            message = await self.receive()
        self.waited += loop.time() - begun
        return message

    async def _turn_away(self, reason: str, error: BotWireError | Refused) -> Message:
        self.ended = True
        await self.answer.turn_away(Turned(reason, error), self)
        return {"type": "http.disconnect"}

    async def drop(self) -> None:
        """Read what is still to come, for a moment, so that its sender reads the answer before the line is cut."""
        self.ended = True
        try:
            async with asyncio.timeout(LINGER):
                while True:
                    message = await self.receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


# ── reading headers ─────────────────────────────────────────────────────────────────────────────────


def _has_body(seen: dict[bytes, bytes]) -> bool:
    return seen.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in seen


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is over {most:,} bytes, this server's limit (--max-body): send it in several requests")


def _check_form(content_type: bytes) -> None:
    """Without keys, a form's body is none of ours: an old browser posts it for any page, and says not which."""
    media = content_type.partition(b";")[0].strip().lower()
    if media in SIMPLE_FORMS:
        wrong = f"Content-Type: {media.decode()} is not taken: send application/json"
        raise Turned("form", Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, wrong))


def _compressed() -> Refused:
    return Refused(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Content-Encoding: bodies are taken as they are; do not compress them",
        {"Accept-Encoding": "identity"},
    )


def _check_url(path: bytes, query: bytes) -> None:
    if _key_in_url(path) or _key_in_url(query) or _key_parameter(query):
        error = InvalidInput(
            "an API key does not go into a URL, which proxies and logs keep: send it as `Authorization: Bearer bw_…`. "
            "If it was a real one, revoke it (`botwire keys revoke ID`) and make another"
        )
        raise Turned("url", error)


def _is_import(scope: Scope) -> bool:
    """Whether the body may be of any length: it is taken in piece by piece."""
    if scope["method"] != "POST":
        return False
    return _import_path(_path(scope)) is not None


def _path(scope: Scope) -> bytes:
    """The path below where the app is mounted, as it was sent."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    root = scope.get("root_path", "")
    return path.removeprefix(root.encode()) if root else path


def _address(hop: str) -> str | None:
    """The address of an entry of `X-Forwarded-For`, which may bear a port."""
    hop = hop.strip()
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ip_address(hop))
    except ValueError:
        return None
