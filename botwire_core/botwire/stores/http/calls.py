"""Calls to a server, without I/O: what is sent, what an answer means, and when it is tried again.

`attempts` and `listening` are generators. They yield what is to be done (send, listen, sleep), are sent what came
of it, and return how the call ended. `HTTPStore` and `AsyncHTTPStore` do what they say; that is all in which the
two differ.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from botwire import wire
from botwire.errors import (
    AccessDenied,
    BotWireError,
    InvalidInput,
    NotAuthenticated,
    OutcomeUnknown,
    RateLimited,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    TooLarge,
)
from botwire.names import is_name
from botwire.ops import MAX_OPS, MAX_SECONDS, Append, Delete, Edit, Get, Messages, Op, Put, Scan, Touch, Trim, Value
from botwire.values import encode
from botwire.where import check_where

TIMEOUT: Final = 60.0  # seconds that a call takes at most, all tries together
CONNECT: Final = 5.0  # seconds until a connection must be there
TRIES: Final = 10  # of a server that has answered before, or that may have got the request: some seconds
FIRST_TRIES: Final = 4  # of one that was never reached: a moment
FIRST_PAUSE: Final = 0.05  # seconds; each pause is random, up to twice as long as the one before
LONGEST_ID: Final = 255  # characters of a request id that a server takes
LONGEST_PAUSE: Final = 2.0  # seconds; whoever asks for more patience ("Retry-After") is reported instead
QUIET: Final = 60.0  # seconds without a sign of life after which a stream counts as broken

SHORT: Final = (Value, Get, Put, Delete, Touch, Append, Edit)
"""Ops that take so little time that none need mind being answered together with others."""

CLOSED: Final = "the store was closed"
GUIDE: Final = "see 'From a 0.2 server' in docs/client.md"


# ── where, and as whom ──────────────────────────────────────────────────────────────────────────────


class Server:
    """Where a server is, and as whom it is asked. What it shows of itself holds no key."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float | None = None) -> None:
        self.url = _checked_url(url)
        self.timeout = _checked_timeout(timeout)
        self.api_key = api_key
        self.has_answered = False
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self.netloc = parts.netloc.rpartition("@")[2]
        self.is_secure = parts.scheme == "https"
        self.headers = [("Accept", "application/json, " + wire.PROBLEM_MEDIA), ("User-Agent", "botwire")]
        if api_key is not None:
            if not (isinstance(api_key, str) and api_key.isascii() and api_key.isprintable() and api_key):
                raise InvalidInput("api_key must be a str as `botwire keys create` prints it")
            self.headers.append(("Authorization", f"Bearer {api_key}"))

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError, TypeError):
        usable, parts = False, urlsplit("")
    if not usable or parts.username is not None or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise InvalidInput("the URL of a server looks like 'http://localhost:8765', without user, query and fragment")
    return url.rstrip("/")


def _checked_timeout(timeout: float | None) -> float:
    if timeout is None:
        return TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < MAX_SECONDS:
        raise InvalidInput(f"timeout={timeout!r} must be a number of seconds, more than 0")
    return timeout


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""


class Answer(NamedTuple):
    """What came back: an answer of whoever answers there."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Failure(NamedTuple):
    """What came back: nothing, and why."""

    why: str
    reached: bool
    """Whether the server may have got the request."""
    again: bool = True
    """Whether it can help to try again."""


def late(server: Server, *, reached: bool) -> Failure:
    """No answer came in time."""
    return Failure(f"it took longer than the time-out of {server.timeout:g} seconds", reached, again=False)


# ── what is to be done ──────────────────────────────────────────────────────────────────────────────


class Send(NamedTuple):
    """Send a request, wait for the answer until the deadline, and tell of it."""

    request: Request
    deadline: float


class Listen(NamedTuple):
    """Open a stream and wait for its first event. Tell of that with True, of the deadline with False."""

    request: Request
    deadline: float


class Sleep(NamedTuple):
    """Wait so many seconds."""

    seconds: float


class Outcome(NamedTuple):
    """How a call ended: with a result or an error."""

    result: Any = None
    error: BotWireError | None = None
    doubt: bool = False
    """Whether a request was sent of which nobody knows if it was carried out."""


T = TypeVar("T")
Step = Send | Listen | Sleep
Got = bool | Answer | Failure | None
Steps = Generator[Step, Got, T]


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────


class Call:
    """What one caller asks: ops, and if they write, the request id that makes a repetition harmless."""

    __slots__ = ("body", "ops", "request_id", "shield", "writes")

    def __init__(self, ops: Sequence[Op], request_id: str | None) -> None:
        _check_ops(ops)
        self.ops = ops
        self.writes = any(op.access != "read" for op in ops)
        self.body, self.shield = _encoded(ops)
        if request_id is not None:
            self.request_id: str | None = header_text(request_id)
        else:
            self.request_id = uuid.uuid4().hex if self.writes else None

    @property
    def is_short(self) -> bool:
        """Whether it may travel together with others."""
        return self.shield is None and all(type(op) in SHORT for op in self.ops)

    def request(self, server: Server) -> Request:
        """The request that asks it."""
        headers = [*server.headers, ("Content-Type", "application/json")]
        if self.request_id is not None:
            headers.append((wire.REQUEST_ID, self.request_id))
        if self.shield is not None:
            headers.append((wire.SHIELD, self.shield))
        return Request("POST", wire.EXECUTE, headers, self.body)

    def read(self, answer: Answer) -> list[Any]:
        """The results that an answer holds. Raises `msgspec.DecodeError`."""
        return wire.decode_results(self.ops, answer.body, answer.headers.get(wire.SHIELD))

    def concluded(self, outcome: Outcome, server: Server) -> list[Any]:
        """The results; or raise the error that the caller should see."""
        error = outcome.error
        if error is None:
            results: list[Any] = outcome.result
            return results
        if self.writes and outcome.doubt and not _settles(error):
            raise OutcomeUnknown(
                f"{server.url} was sent a write and did not say what became of it ({error}): it may or may not have "
                f"happened. Read it back, or repeat it with request_id={self.request_id!r}"
            ) from error
        raise error


class Together:
    """What several callers ask at the same time, in one request."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls

    def request(self, server: Server) -> Request:
        """The request that asks it all."""
        body = wire.encode_batches([(call.body, call.request_id) for call in self.calls])
        return Request("POST", wire.BATCHES, [*server.headers, ("Content-Type", "application/json")], body)

    def read(self, answer: Answer) -> list[list[Any] | wire.Problem]:
        """What each caller is answered. Raises `msgspec.DecodeError`."""
        batches = [call.ops for call in self.calls]
        return wire.decode_answers(batches, answer.body, answer.headers.get(wire.SHIELD))


def header_text(request_id: str) -> str:
    """A request id as a header can hold it, and so that no two become one: percent-encoded, or if long a digest."""
    if not isinstance(request_id, str) or not request_id:
        raise InvalidInput(f"request_id must be a str that is not empty, not {request_id!r}")
    text = quote(request_id, safe="!#$&'()*+,/:;=?@[]\"<>\\^`{|}", errors="surrogatepass")
    if len(text) <= LONGEST_ID:
        return text
    return "%sha256:" + hashlib.sha256(text.encode()).hexdigest()  # nothing that is encoded begins so


def _check_ops(ops: Sequence[Op]) -> None:
    if len(ops) > MAX_OPS:
        raise InvalidInput(f"{len(ops):,} ops in one batch: the limit is {MAX_OPS:,}")
    for op in ops:
        if not isinstance(op, Op):
            raise InvalidInput(f"{op!r} is no op: see botwire.ops")


def _encoded(ops: Sequence[Op]) -> tuple[bytes, str | None]:
    for op in ops:
        if isinstance(op, Value | Get):
            op.check_names()  # the store checks them only when it has found nothing
        elif isinstance(op, Scan) and op.where is not None:
            check_where(op.where)
            encode(op.where)  # refuses NaN and infinities, which would arrive as null
    try:
        return wire.encode_ops(ops)
    except UnicodeEncodeError:
        return _encoded_without_halves(ops)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidInput(f"the ops cannot be sent: {error}") from error


def _encoded_without_halves(ops: Sequence[Op]) -> tuple[bytes, str | None]:
    """The same for ops that look for what cannot be there: half a surrogate pair is in no id, and cannot be sent."""
    try:
        return wire.encode_ops([_without_halves(op) for op in ops])
    except UnicodeEncodeError:
        raise InvalidInput("a name or a filter holds half a surrogate pair: remove it") from None


def _without_halves(op: Op) -> Op:
    if isinstance(op, Messages | Trim) and op.ids is not None:
        return msgspec.structs.replace(op, ids=tuple(each for each in op.ids if is_name(each)))
    return op


# ── trying ──────────────────────────────────────────────────────────────────────────────────────────


def attempts(
    call: Call | Together, server: Server, deadline: float, *, tried: int = 0, doubt: bool = False
) -> Steps[Outcome]:
    """Send it, and again as long as that can help: not too often, and not beyond the deadline."""
    request = call.request(server)
    while True:
        got = yield Send(request, deadline)
        assert isinstance(got, Answer | Failure)  # that is what sending comes to
        server.has_answered = server.has_answered or isinstance(got, Answer)
        verdict = judged(got, server, call.read)
        if verdict.error is None:
            return Outcome(verdict.result)
        doubt = doubt or verdict.doubt
        tried += 1
        pause = verdict.pause(tried)
        tries = TRIES if doubt or server.has_answered else FIRST_TRIES
        if pause is None or tried >= tries or monotonic() + pause >= deadline:
            break
        yield Sleep(pause)
    if verdict.is_foreign:
        return Outcome(None, (yield from _named(verdict.error, server, deadline)), doubt)
    return Outcome(None, verdict.error, doubt)


class Verdict(NamedTuple):
    """What an answer, or its absence, means."""

    result: Any = None
    error: BotWireError | None = None
    doubt: bool = False
    """Whether the request may have been carried out all the same."""
    again: bool = False
    after: float | None = None
    """Seconds after which the server wants to be asked again."""
    is_foreign: bool = False
    """Whether this is how something answers that is no botwire server, or one of 0.2."""

    def pause(self, tried: int) -> float | None:
        """Seconds to wait before the next try; `None`: there is to be none."""
        if not self.again or (self.after or 0) > LONGEST_PAUSE:
            return None
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tried - 1, 16))
        return (self.after or 0.0) + random.uniform(0, longest)  # noqa: S311  # it only has to spread callers out


def judged(got: Answer | Failure, server: Server, read: Callable[[Answer], Any]) -> Verdict:
    """What came of a request."""
    if isinstance(got, Failure):
        what = f"{server.url} {'gave no answer' if got.reached else 'cannot be reached'}: {got.why}"
        error = StoreUnavailable(f"the store {server.url} is closed: open a new one" if got.why == CLOSED else what)
        return Verdict(None, error, doubt=got.reached, again=got.again)
    kind = got.headers.get("content-type", "").partition(";")[0].strip().lower()
    if got.status == 200 and kind == "application/json":
        try:
            return Verdict(read(got))
        except (msgspec.DecodeError, UnicodeDecodeError, BotWireError) as error:
            wrong = StoreError(f"the answer of {server.url} cannot be read: {error}")
            return Verdict(None, wrong, doubt=True)
    is_door = got.status not in (404, 405)  # else what answers knows no such door, whatever it is
    if kind == wire.PROBLEM_MEDIA and is_door and (problem := _problem(got)) is not None:
        return judged_problem(problem, _seconds(got.headers.get("retry-after")))
    return _judged_foreign(got, server)


def judged_problem(problem: wire.Problem, after: float | None = None) -> Verdict:
    """What an error of a botwire server means."""
    after = after if problem.retry_after is None else problem.retry_after
    error = wire.error_of(problem)
    if problem.request_id is not None and problem.status >= 500:  # server errors begin there
        error.add_note(f"The log of the server calls this request {problem.request_id}.")
    unexpected = type(error) is BotWireError and problem.status >= 500  # see above
    again = isinstance(error, StoreBusy | OutcomeUnknown | RateLimited) or type(error) is StoreUnavailable
    return Verdict(None, error, doubt=unexpected or isinstance(error, OutcomeUnknown), again=again, after=after)


def _problem(answer: Answer) -> wire.Problem | None:
    try:
        return msgspec.json.decode(answer.body, type=wire.Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # somebody else's problem, told as any other foreign answer


def _settles(error: BotWireError) -> bool:
    """Whether the error shows that no earlier try was carried out: the store has looked for its request id."""
    return (
        not isinstance(error, StoreError | AccessDenied | RateLimited | OutcomeUnknown)
        and type(error) is not BotWireError
    )


# ── answers that no botwire server gives ────────────────────────────────────────────────────────────

_REFUSED: Final[dict[int, type[BotWireError]]] = {401: NotAuthenticated, 403: AccessDenied, 413: TooLarge}


def _judged_foreign(got: Answer, server: Server) -> Verdict:
    """Something between here and a botwire server has answered, or something else than one."""
    told = f"{server.url} answers {got.status}{_said(got)}"
    after = _seconds(got.headers.get("retry-after"))
    if 300 <= got.status < 400:  # redirects
        return Verdict(None, StoreUnavailable(_redirected(got, server)))
    if got.status == 429:  # too many requests
        after = 60.0 if after is None else after
        return Verdict(None, RateLimited(after, told), again=True, after=after)
    if got.status in _REFUSED:
        return Verdict(None, _REFUSED[got.status](told))
    if got.status in (408, 502, 503, 504):
        # A gateway that lost the server: it may have passed the request on before.
        return Verdict(None, StoreUnavailable(told), doubt=True, again=True, after=after)
    if got.status >= 500 and got.status != 501:  # server errors, but "no such method"
        return Verdict(None, StoreUnavailable(told), doubt=True)
    return Verdict(None, StoreUnavailable(told), is_foreign=True)


def _redirected(got: Answer, server: Server) -> str:
    there = urljoin(server.url + wire.EXECUTE, got.headers.get("location", ""))
    place = there.partition(wire.EXECUTE)[0].partition(wire.BATCHES)[0]
    return f"{server.url} sends elsewhere, which is not followed: use url={place!r} if that is your server"


def _said(got: Answer) -> str:
    text = " ".join(got.body[:2_000].decode("utf-8", "replace").split())
    return f": {text[:160]!r}" if text else ""


def _seconds(header: str | None) -> float | None:
    """`Retry-After`, if it is a number of seconds; as a date it is always far away."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return LONGEST_PAUSE + 1


def _named(error: BotWireError, server: Server, deadline: float) -> Steps[BotWireError]:
    """The error, which says more if it is a server of 0.2 that answers there."""
    headers = [header for header in server.headers if header[0] != "Authorization"]
    got = yield Send(Request("GET", "/memory/default", headers), deadline)
    if isinstance(got, Answer) and got.status == 200 and _lists_keys(got.body):
        return StoreUnavailable(
            f"{server.url} speaks only the wire of botwire 0.2 (GET /memory/… answers there, POST {wire.EXECUTE} does "
            f"not): this client needs a server of botwire 1.0 or later. To bring its memories over {GUIDE}"
        )
    return StoreUnavailable(f"{server.url} is no botwire server, or the URL needs a path: {error}")


def _lists_keys(body: bytes) -> bool:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(found, dict) and isinstance(found.get("keys"), list)


# ── waiting for changes ─────────────────────────────────────────────────────────────────────────────


def listening(server: Server, namespace: str, cursor: str, deadline: float, *, subtree: bool) -> Steps[bool | None]:
    """Listen to the feed behind a cursor, and again whenever the connection breaks, until the deadline.

    True: there may be changes. False: time is up. None: it is up, and nobody was there to ask.
    """
    request = _stream(server, namespace, cursor, subtree=subtree)
    tried = 0
    while True:
        got = yield Listen(request, deadline)
        if got is None or isinstance(got, bool):
            return got
        if isinstance(got, Answer) and got.status == 410:  # gone: `Changes` says so too
            return True
        verdict = judged(got, server, _no_stream)
        assert verdict.error is not None  # what is no stream is an error
        tried = 1 if isinstance(got, Failure) and got.reached else tried + 1
        pause = verdict.pause(tried)
        if pause is None:
            if verdict.is_foreign:
                raise (yield from _named(verdict.error, server, deadline))
            raise verdict.error
        if monotonic() + pause >= deadline:
            return None
        yield Sleep(pause)


def _stream(server: Server, namespace: str, cursor: str, *, subtree: bool) -> Request:
    path = "/v1/changes"
    if namespace:
        name = quote(namespace, safe="").replace(".", "%2E")  # a bare dot would be taken for a step in the path
        path = f"/v1/namespaces/{name}/changes"
    query = f"?after={quote(cursor, safe='')}" + ("&subtree=true" if subtree and namespace else "")
    headers = [header for header in server.headers if header[0] != "Accept"]
    return Request("GET", path + query, [*headers, ("Accept", "text/event-stream"), ("Cache-Control", "no-store")])


def _no_stream(answer: Answer) -> Any:
    raise msgspec.DecodeError(f"a stream of events was asked for, not {answer.headers.get('content-type')!r}")


class Events:
    """Reads server-sent events: says which kinds have come, comments (heartbeats) aside."""

    def __init__(self) -> None:
        self._line = b""
        self._kind = "message"
        self._has_data = False

    def feed(self, chunk: bytes) -> list[str]:
        """The kinds of the events that this chunk completes."""
        text = self._line + chunk
        held = b"\r" if text.endswith(b"\r") else b""  # the half of a line's end, perhaps
        *lines, rest = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line = rest + held
        return [kind for line in lines if (kind := self._read(line)) is not None]

    def _read(self, line: bytes) -> str | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"event":
                self._kind = value.strip().decode("utf-8", "replace")
            self._has_data = self._has_data or field == b"data"
            return None
        kind = self._kind if self._has_data else None
        self._kind, self._has_data = "message", False
        return kind
