"""`botwire serve` as tests use it: a process of its own, on a free port, that ends with the test."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATIENCE = 60  # seconds after which something counts as hung
ROOT = Path(__file__).parents[2]
BOTWIRE = [sys.executable, "-W", "error", "-c", "from botwire.cli import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """An environment in which a process finds this botwire, and no settings but these."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BOTWIRE_")}
    return {**plain, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A `botwire` command that ends by itself."""
    return subprocess.run(
        [*BOTWIRE, *arguments],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Answer(NamedTuple):
    """What was answered to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Served:
    """A server that is ready."""

    def __init__(self, folder: Path, options: tuple[str, ...], environ: dict[str, str], **popen: Any) -> None:
        self.log_file = folder / f"server-{time.monotonic_ns()}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*BOTWIRE, "serve", "--port", "0", *options],
                env=environment(**environ),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                **popen,
            )
        self.ready: dict[str, Any] = json.loads(self._line())
        self.url: str = self.ready["url"]
        self.port = urlsplit(self.url).port
        self.pid: int = self.ready["pid"]

    def _line(self) -> str:
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        line: str = self.process.stdout.readline()
        watchdog.cancel()
        assert line, f"the server did not start: {self.process.wait()} {self.log}"
        return line

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return self.log_file.read_text("utf-8")

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        """A request on a connection of its own. A body that is not bytes is sent as JSON."""
        if tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=tls)
        try:
            text = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, text, headers or {})
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Have it stop. Returns its exit code."""
        self.tell(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not stop: {self.log}") from None

    def kill(self) -> None:
        """Kill it on the spot."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, if it has not ended."""
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Served]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Gives a function that starts servers; all of them are ended. Their store is `memory.db` there if not said."""
    started: list[Served] = []

    def start(*options: str, environ: dict[str, str] | None = None, **popen: Any) -> Served:
        if "--store" not in options and not environ:
            options = ("--store", f"sqlite:///{folder / 'memory.db'}", *options)
        started.append(Served(folder, options, environ or {}, **popen))
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            each.close()


def until(met: Callable[[], Any], what: str) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := met()):
        assert time.monotonic() < deadline, f"it never came to be that {what}"
        time.sleep(0.02)
    return found


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes on a connection, up to and with a mark, or all of it if the other side closes before."""
    data = b""
    while mark not in data:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
    return data


def read_all(connection: socket.socket) -> bytes:
    """What comes on a connection until the other side closes it."""
    data = b""
    while piece := connection.recv(65_536):
        data += piece
    return data
