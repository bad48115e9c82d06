"""Connections to a server: the one file that knows httpx.

It uses httpx's transports, which are pools of connections, without the client above them: that saves a third of
the time of a request, and nothing is added to one behind our back (cookies, credentials from a .netrc, redirects).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import lru_cache
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.request import getproxies, proxy_bypass

import httpx

from botwire.errors import InvalidInput, StoreUnavailable
from botwire.stores.opening import without_password

from .calls import CLOSED, CONNECT, QUIET, Answer, Events, Failure, Request, Server, late

CALLS: Final = 64  # connections at most; whoever comes then waits for one
IDLE: Final = 300.0  # seconds that an unused connection is kept: agents think long between two calls
SIGNALS: Final = ("change", "problem")  # events after which one should ask for `Changes`
SLACK: Final = 0.5  # seconds that a backstop leaves to the time-outs before it

_CLOSED: Final = Failure(CLOSED, reached=False, again=False)
_TIME_IS_UP: Final = Failure("there was no time left to ask", reached=False, again=False)


# ── how to connect ──────────────────────────────────────────────────────────────────────────────────


def _options(server: Server, **limits: Any) -> dict[str, Any]:
    """The arguments of a transport."""
    return {
        # Without TLS there is nothing to verify: an empty context spares reading the certificates of the system.
        "verify": True if server.is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        "proxy": proxy_for(server),
        "limits": httpx.Limits(keepalive_expiry=IDLE, **limits),
        "socket_options": _keep_alive(),
    }


def proxy_for(server: Server) -> str | None:
    """The proxy that the environment names for this server. Loopback is never sent through one."""
    if _is_loopback(server.host) or proxy_bypass(server.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get("https" if server.is_secure else "http") or proxies.get("all")
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name


def _keep_alive() -> list[tuple[int, int, int]]:
    """Have the system notice within half a minute that the other side is gone, also while we wait for it."""
    found = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if (option := getattr(socket, name, None)) is not None:
            found.append((socket.IPPROTO_TCP, option, value))
    return found


def _transport(kind: Any, server: Server, **limits: Any) -> Any:
    try:
        return kind(**_options(server, **limits))
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # of the proxy
        raise InvalidInput(f"the proxy that the environment names for {server.url} cannot be used: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"the certificates to verify {server.url} with cannot be read: {error}") from error


def _url(server: Server) -> httpx.URL:
    try:
        return httpx.URL(server.url)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{server.url!r} is no URL: {error}") from error


@lru_cache(256)
def _below(base: httpx.URL, path: str) -> httpx.URL:
    return base.copy_with(raw_path=base.raw_path.rstrip(b"/") + path.encode("ascii"))


def _request(base: httpx.URL, request: Request, *, left: float, read: float) -> httpx.Request:
    return httpx.Request(
        request.method,
        _below(base, request.path),
        headers=request.headers,
        content=request.body or None,
        extensions={"timeout": {"connect": min(left, CONNECT), "read": read, "write": left, "pool": left}},
    )


# ── what went wrong ─────────────────────────────────────────────────────────────────────────────────

_NOT_REACHED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def _failure(error: Exception, server: Server) -> Failure:
    """What an error of httpx means."""
    if isinstance(error, _NOT_REACHED):
        found, proxy = _unreached(error), proxy_for(server)
        via = "" if proxy is None else f" (asked through the proxy {without_password(proxy)})"
        return found._replace(why=found.why + via)
    if _is_late(error):
        return late(server, reached=True)
    why = str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and not server.is_secure:
        why += "; if it expects TLS, its URL begins with https://"
    return Failure(why, reached=True)


def _unopened(error: Exception, server: Server) -> Failure:
    """The same of a stream: whoever waits has time to try again."""
    return _failure(error, server)._replace(again=True) if _is_late(error) else _failure(error, server)


def _is_late(error: Exception | None) -> bool:
    return isinstance(error, httpx.TimeoutException | TimeoutError)


def _unreached(error: Exception) -> Failure:
    causes = list(_causes(error))
    if (known := _of_tls(causes) or _of_names(causes)) is not None:
        return known
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Failure("nothing listens there; is the server running (`botwire serve`)?", reached=False)
    if isinstance(error, httpx.PoolTimeout):
        return Failure(f"all {CALLS} connections were busy", reached=False, again=False)
    if isinstance(error, httpx.ConnectTimeout):
        return Failure("it took too long to connect", reached=False)
    return Failure(str(error) or type(error).__name__, reached=False)


def _of_tls(causes: list[BaseException]) -> Failure | None:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({cause.verify_message}): check the name in the URL, or set "
            return Failure(why + "SSL_CERT_FILE to the certificate of its authority", reached=False, again=False)
        if isinstance(cause, ssl.SSLError):
            why = f"TLS failed ({cause.reason or cause}); if it is a server without TLS, its URL begins with http://"
            return Failure(why, reached=False)
    return None


def _of_names(causes: list[BaseException]) -> Failure | None:
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            why = f"its name is not known ({cause.strerror}): check the URL"
            return Failure(why, reached=False, again=cause.errno == socket.EAI_AGAIN)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that it came of."""
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    yield from _causes(error.__cause__ or error.__context__)


# ── threads ─────────────────────────────────────────────────────────────────────────────────────────


class Connections:
    """Pooled connections, for all threads of this process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._base = _url(server)
        self._lock = threading.Lock()
        self._pools: Pools | None = None
        self._users = 0
        self._at_exit: weakref.finalize[Any, Any] | None = None
        self._closed = threading.Event()
        self._heard: set[socket.socket] = set()
        _all.add(self)

    def send(self, request: Request, deadline: float) -> Answer | Failure:
        """Send a request and read its answer."""
        if (left := deadline - monotonic()) <= 0:
            return _TIME_IS_UP
        if (pools := self._enter()) is None:
            return _CLOSED
        try:
            with contextlib.closing(
                pools.calls.handle_request(_request(self._base, request, left=left, read=left))
            ) as response:
                body = b"".join(_until(deadline, response.iter_bytes()))
        except httpx.RequestError as error:
            return _failure(error, self.server)
        finally:
            self._leave()
        return Answer(response.status_code, response.headers, body)

    def listen(self, request: Request, deadline: float) -> bool | Answer | Failure:
        """Open a stream. True: an event has come. False: none has, and time is up."""
        if (left := deadline - monotonic()) <= 0:
            return _TIME_IS_UP
        if (pools := self._enter()) is None:
            return _CLOSED
        try:
            asked = _request(self._base, request, left=left, read=min(left, QUIET))
            with contextlib.closing(pools.streams.handle_request(asked)) as response:
                return self._hear(response, deadline)
        except httpx.RequestError as error:
            return _unopened(error, self.server)
        finally:
            self._leave()

    def _enter(self) -> Pools | None:
        """The pools, which stay open until one leaves; `None`: the store is closed."""
        with self._lock:
            if self._closed.is_set():
                return None
            if self._pools is None:
                calls = _transport(httpx.HTTPTransport, self.server, max_connections=CALLS)
                streams = _transport(httpx.HTTPTransport, self.server, max_connections=None)
                self._pools = Pools(calls, streams)
                self._at_exit = weakref.finalize(self, self._pools.close)
            self._users += 1
            return self._pools

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._closed.is_set() and self._users == 0
        if is_last:
            self._close()

    def _hear(self, response: httpx.Response, deadline: float) -> bool | Answer | Failure:
        is_stream, error = _is_stream(response), None
        try:
            if not is_stream:
                return Answer(response.status_code, response.headers, b"".join(_until(deadline, response.iter_bytes())))
            with self._cut(response, deadline) as cut_in_time:
                if _has_event(cut_in_time, response.iter_bytes()):
                    return True
        except httpx.RequestError as failed:
            error = failed
        if self._closed.is_set():
            return _CLOSED
        if is_stream and monotonic() >= deadline:
            return False
        return _broken(error)

    @contextlib.contextmanager
    def _cut(self, response: httpx.Response, deadline: float) -> Generator[Callable[[], None]]:
        """Have the stream cut when the store is closed, and once that is asked for, at the deadline.

        A read of httpx waits as long as it was told when the stream was opened, and each heartbeat begins a new one.
        """
        sock = response.extensions["network_stream"].get_extra_info("socket")
        patience = min(deadline - monotonic(), QUIET)
        timers: list[threading.Timer] = []

        def cut_in_time() -> None:
            left = deadline - monotonic()
            if not timers and patience - left > SLACK:  # else the next read ends early enough by itself
                timers.append(threading.Timer(max(0.0, left), _shut, [sock]))
                timers[0].daemon = True
                timers[0].start()

        self._heard.add(sock)
        if self._closed.is_set():  # `close` sets that first, then cuts whom it finds here
            _shut(sock)
        try:
            yield cut_in_time
        finally:
            self._heard.discard(sock)
            for timer in timers:
                timer.cancel()

    def sleep(self, seconds: float) -> None:
        """Wait, but not for a store that is closed meanwhile."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End all streams, and close the connections once nobody uses them any more."""
        with self._lock:
            self._closed.set()
            is_unused = self._users == 0
        for sock in list(self._heard):
            _shut(sock)
        if is_unused:
            self._close()

    def _close(self) -> None:
        if self._at_exit is not None:
            self._at_exit()

    def abandon(self) -> None:
        """In a child of a fork: leave what was inherited to the parent, and begin afresh."""
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()
        self._lock, self._heard, self._users = threading.Lock(), set(), 0
        if self._at_exit is not None:
            self._at_exit.detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # that they go without being closed is what is wanted
            self._at_exit = self._pools = None


class Pools(NamedTuple):
    """Connections for calls; and for streams, which must not take the places of calls."""

    calls: httpx.HTTPTransport
    streams: httpx.HTTPTransport

    def close(self) -> None:
        """Close them all."""
        self.calls.close()
        self.streams.close()


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        if monotonic() > deadline:
            raise httpx.ReadTimeout("the answer came too slowly")


def _is_stream(response: httpx.Response) -> bool:
    return response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream")


def _has_event(before_more: Callable[[], None], chunks: Iterator[bytes]) -> bool:
    events = Events()
    for chunk in chunks:
        if any(kind in SIGNALS for kind in events.feed(chunk)):
            return True
        before_more()
    return False


def _broken(error: Exception | None) -> Failure:
    why = "the stream of changes ended" if error is None else str(error) or type(error).__name__
    return Failure(why, reached=True)


def _shut(sock: socket.socket) -> None:
    """Wake whoever reads from it: for them the other side has hung up."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of the plain socket: TLS is not ours to end from here
    except OSError:
        return  # it was closed already


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _abandon_inherited() -> None:
    for connections in list(_all):
        connections.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_inherited)


# ── event loops ─────────────────────────────────────────────────────────────────────────────────────


class AsyncConnections:
    """The same for one event loop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._base = _url(server)
        self._calls: httpx.AsyncHTTPTransport = _transport(httpx.AsyncHTTPTransport, server, max_connections=CALLS)
        self._streams: httpx.AsyncHTTPTransport = _transport(httpx.AsyncHTTPTransport, server, max_connections=None)
        self._users = 0
        self._closed = asyncio.Event()
        self._heard: set[asyncio.Timeout] = set()

    async def send(self, request: Request, deadline: float) -> Answer | Failure:
        """As `Connections.send`."""
        if self._closed.is_set():
            return _CLOSED
        if (left := deadline - monotonic()) <= 0:
            return _TIME_IS_UP
        self._users += 1
        try:
            async with asyncio.timeout(left + SLACK):
                response = await self._calls.handle_async_request(_request(self._base, request, left=left, read=left))
                async with contextlib.aclosing(response):
                    body = await _joined(response)
        except (httpx.RequestError, TimeoutError) as error:
            return _failure(error, self.server)
        finally:
            await self._leave()
        return Answer(response.status_code, response.headers, body)

    async def listen(self, request: Request, deadline: float) -> bool | Answer | Failure:
        """As `Connections.listen`."""
        if self._closed.is_set():
            return _CLOSED
        if (left := deadline - monotonic()) <= 0:
            return _TIME_IS_UP
        is_stream, error, limit = False, None, asyncio.timeout(left)
        self._users += 1
        try:
            async with limit:
                self._heard.add(limit)
                asked = _request(self._base, request, left=left, read=min(left, QUIET))
                response = await self._streams.handle_async_request(asked)
                async with contextlib.aclosing(response):
                    is_stream = _is_stream(response)
                    if not is_stream:
                        return Answer(response.status_code, response.headers, await _joined(response))
                    if await _has_event_async(response.aiter_bytes()):
                        return True
        except (httpx.RequestError, TimeoutError) as failed:
            error = failed
        finally:
            self._heard.discard(limit)
            await self._leave()
        return self._unheard(error, deadline, is_stream=is_stream)

    def _unheard(self, error: Exception | None, deadline: float, *, is_stream: bool) -> bool | Failure:
        if self._closed.is_set():
            return _CLOSED
        if is_stream and (isinstance(error, TimeoutError) or monotonic() >= deadline):
            return False
        return _broken(error) if error is None or is_stream else _unopened(error, self.server)

    async def sleep(self, seconds: float) -> None:
        """As `Connections.sleep`."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return

    async def _leave(self) -> None:
        self._users -= 1
        if self._closed.is_set() and self._users == 0:
            await self._close()

    async def close(self) -> None:
        """As `Connections.close`."""
        self._closed.set()
        for limit in self._heard:
            limit.reschedule(0)  # it has come
        if self._users == 0:
            await self._close()

    async def _close(self) -> None:
        await self._calls.aclose()
        await self._streams.aclose()


async def _joined(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in response.aiter_bytes()])


async def _has_event_async(chunks: AsyncIterator[bytes]) -> bool:
    events = Events()
    async for chunk in chunks:
        if any(kind in SIGNALS for kind in events.feed(chunk)):
            return True
    return False
