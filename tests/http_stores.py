"""Stores over HTTP for the tests: one real server process for the whole run, with a fresh app for each store.

An app is mounted under a path of its own (`/s/3`) and goes by the test's own clock: both processes look at the same
place of a small file in memory.
"""

from __future__ import annotations

import http.client
import itertools
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

CLOCKS = 4_096  # tests at a time, more or less


class Clock(Protocol):
    """What `conftest.Clock` is here."""

    def move_to(self, place: memoryview[int]) -> None:
        """Keep the time there from now on."""


# ── for the tests ───────────────────────────────────────────────────────────────────────────────────


class ServerProcess:
    """The process, and how it is told to open and close stores."""

    def __init__(self) -> None:
        descriptor, self._clock_file = tempfile.mkstemp(prefix="botwire-clocks-")
        os.ftruncate(descriptor, CLOCKS * 8)
        self._clocks = memoryview(mmap.mmap(descriptor, CLOCKS * 8)).cast("q")
        os.close(descriptor)
        self._numbers = itertools.count()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._clock_file],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,  # it ends with this one
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None  # it was asked for
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the server did not start: {self.output()}")
        self.url = f"http://127.0.0.1:{port}"
        self._control = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        self._lock = threading.Lock()
        self._read = 0

    def open(self, path: str, clock: Clock) -> str:
        """Have a store opened, on this clock. Returns its URL."""
        number = next(self._numbers)
        place = self._clocks[number % CLOCKS : number % CLOCKS + 1]
        clock.move_to(place)
        self._ask("POST", number, {"path": path, "clock": number % CLOCKS})
        return f"{self.url}/s/{number}"

    def close(self, url: str) -> None:
        """Have the store closed."""
        self._ask("DELETE", int(url.rpartition("/")[2]))

    def _ask(self, method: str, number: int, body: Any = None) -> None:
        with self._lock:
            try:
                self._control.request(method, f"/stores/{number}", json.dumps(body))
                response = self._control.getresponse()
                answer = response.read()
            finally:
                self._control.close()  # idle between two stores, it would be cut off some day
        if response.status != 200:
            raise RuntimeError(f"{method} of store {number}: {answer.decode()} {self.output()}")

    def output(self) -> str:
        """What the server has written since the last time that it was asked for."""
        self._log.seek(self._read)
        text = self._log.read()
        self._read += len(text)
        return text.decode("utf-8", "replace")

    def stop(self) -> None:
        """End the process."""
        self._control.close()
        assert self._process.stdin is not None  # it was asked for
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None  # it was asked for
            self._process.stdout.close()
            self._log.close()
            Path(self._clock_file).unlink()


_running: list[ServerProcess] = []


def running() -> ServerProcess:
    """The server process, started if it does not run yet."""
    if not _running:
        _running.append(ServerProcess())
    return _running[0]


def stop() -> None:
    """End the server process, if there is one."""
    while _running:
        _running.pop().stop()


def output() -> str:
    """What the server process has written since this was last asked."""
    return _running[0].output() if _running else ""


def served(path: Path | str, clock: Clock, make: Callable[[str], Any]) -> Any:
    """A store of the server process, as `make(url)` reaches it. Closing it closes both."""
    server = running()
    url = server.open(str(path), clock)
    store = make(url)
    close = store.close

    def close_both() -> None:
        close()
        store.close = close  # twice is harmless
        server.close(url)

    store.close = close_both
    return store


# ── the process ─────────────────────────────────────────────────────────────────────────────────────

Asgi = Callable[[dict[str, Any], Any, Any], Coroutine[Any, Any, None]]


class Stores:
    """An ASGI app that opens and closes stores, and passes requests on to their apps."""

    def __init__(self, clocks: memoryview[int]) -> None:
        self._clocks = clocks
        self._apps: dict[str, Asgi] = {}
        self._open: dict[str, AsyncExitStack] = {}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        kind, number = scope["path"].split("/", 3)[1:3]
        if kind == "s" and number in self._apps:
            await self._apps[number]({**scope, "root_path": f"/s/{number}"}, receive, send)
            return
        status = 200
        body = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            body += message["body"]
            if not message.get("more_body"):
                break
        if kind == "stores" and scope["method"] == "POST":
            await self._begin(number, **json.loads(body))
        elif kind == "stores" and number in self._open:
            await self._end(number)
        else:
            status = 404
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, number: str, path: str, clock: int) -> None:
        from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
        from botwire_server import Settings, create_app

        clocks = self._clocks
        store = AsyncSQLiteStore(SQLiteStore(path, durability="relaxed", clock=lambda: clocks[clock]))
        app = create_app(store, Settings(max_batch=10_000, max_body=64 * 1024 * 1024))
        stack = self._open[number] = AsyncExitStack()
        stack.push_async_callback(store.close)
        await stack.enter_async_context(app.router.lifespan_context(app))
        self._apps[number] = app

    async def _end(self, number: str) -> None:
        del self._apps[number]
        await self._open.pop(number).aclose()


def main() -> None:
    """Serve until standard input ends."""
    import uvicorn

    with Path(sys.argv[1]).open("r+b") as file:
        clocks = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Stores(clocks),
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    server.run([listening])


if __name__ == "__main__":
    main()
