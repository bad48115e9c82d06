"""A server between a client and a real one, that misbehaves when it is told to."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Seen(NamedTuple):
    """A request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Fault = str | bytes | Callable[[Seen], bytes | None]
"""What becomes of a request; `None` of a function means that it is passed on after all."""


def answer(status: int, body: Any = b"", kind: str = "application/json", **headers: str) -> bytes:
    """The bytes of an answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(text)}"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


def problem(status: int, kind: str, detail: str = "it is so", **more: Any) -> bytes:
    """The bytes of an answer that is a problem of botwire's."""
    body = {"type": f"urn:botwire:problem:{kind}", "title": kind, "status": status, "detail": detail, **more}
    return answer(status, body, "application/problem+json")


class Faulty:
    """Passes requests on to a server, but for those for which `script` has something else.

    * "drop": hang up at once. "reset": the same, with a reset.
    * "cut": pass it on, and hang up instead of passing back what is answered. "half": pass half of that back.
    * "stall": pass it on, and never answer. "hold": never even pass it on.
    * "pass": pass it on. "close": pass it on, answer, then hang up.
    * bytes: answer those. A function: see `Fault`.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{parts.path}"
        self.script: deque[Fault] = deque()
        self.always: Fault = "pass"
        self.seen: list[Seen] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        gone = contextlib.suppress(OSError, http.client.HTTPException)
        with connection, gone, connection.makefile("rb") as stream:
            while (request := read_request(stream)) is not None:
                self.seen.append(request)
                fault = self.script.popleft() if self.script else self.always
                if not self._do(fault, request, connection):
                    break
            connection.shutdown(socket.SHUT_RDWR)
        self._open.discard(connection)

    def _do(self, fault: Fault, request: Seen, connection: socket.socket) -> bool:
        """Deal with a request. Returns whether the connection stays."""
        if callable(fault):
            found = fault(request)
            fault = "pass" if found is None else found
        if isinstance(fault, bytes):
            connection.sendall(fault)
            return True
        if fault == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("drop", "reset"):
            return False
        if fault == "hold":
            self._ended.wait()
            return False
        if "event-stream" in request.headers.get("accept", ""):
            return self._piped(request, connection)
        text = self._passed_on(request)
        if fault == "stall":
            self._ended.wait()
        elif fault != "cut":
            connection.sendall(text[: len(text) // 2] if fault == "half" else text)
        return fault == "pass"

    @contextmanager
    def _asked(self, request: Seen) -> Iterator[http.client.HTTPResponse]:
        upstream = http.client.HTTPConnection(*self._upstream, timeout=60)
        upstream.connect()
        sock = upstream.sock
        self._open.add(sock)
        try:
            target = urlsplit(request.target)
            path = target.path + (f"?{target.query}" if target.query else "")
            headers = {name: value for name, value in request.headers.items() if name != "host"}
            upstream.request(request.method, path, request.body, headers)
            yield upstream.getresponse()
        finally:
            self._open.discard(sock)
            upstream.close()

    def _passed_on(self, request: Seen) -> bytes:
        with self._asked(request) as response:
            told = {name: value for name, value in response.getheaders() if name.lower() == "botwire-shield"}
            return answer(response.status, response.read(), response.headers["content-type"], **told)

    def _piped(self, request: Seen, connection: socket.socket) -> bool:
        """Pass a stream back as it comes, until one side hangs up."""
        with self._asked(request) as response:
            kind = response.headers["content-type"]
            connection.sendall(f"HTTP/1.1 {response.status} X\r\ncontent-type: {kind}\r\n\r\n".encode())
            while piece := response.read1():
                connection.sendall(piece)
        return False

    def close(self) -> None:
        """Hang up on everybody."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)


def read_request(stream: Any) -> Seen | None:
    """The next request on a connection."""
    line = stream.readline().decode()
    if not line:
        return None
    method, target, _ = line.split()
    headers: dict[str, str] = {}
    while line := stream.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Seen(method, target, headers, stream.read(int(headers.get("content-length", 0))))


@contextmanager
def between(upstream: str) -> Iterator[Faulty]:
    """A faulty server in front of this one."""
    faulty = Faulty(upstream)
    try:
        yield faulty
    finally:
        faulty.close()
