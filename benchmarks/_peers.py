"""What botwire is compared with, each as its users would use it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

Get = Callable[[str], Any]
Set = Callable[[str, Any], object]

HOW_TO_INSTALL_REDIS = "no redis-server on the PATH (apt install redis-server, or brew install redis)"


@dataclass
class Peer:
    """One contender: how it sets and gets; `quick_fill` sets many entries where each set would wait for the disk."""

    set: Set
    get: Get
    quick_fill: Callable[[Iterable[tuple[str, Any]]], object] | None = None

    def fill(self, entries: Iterable[tuple[str, Any]]) -> None:
        """Set all of them."""
        if self.quick_fill is not None:
            self.quick_fill(entries)
            return
        for key, value in entries:
            self.set(key, value)


@contextmanager
def bare_apsw(path: Path, synchronous: Literal["NORMAL", "FULL"]) -> Iterator[Peer]:
    """The least that SQLite can do: one table, one statement, botwire's JSON codec."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute(
        "CREATE TABLE items (namespace TEXT, key TEXT, value BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID"
    )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    execute = connection.cursor().execute
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode

    def put(key: str, value: Any) -> None:
        execute(
            "INSERT INTO items VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            ("user-42", key, encode(value)),
        )

    def get(key: str) -> Any:
        return decode(execute("SELECT value FROM items WHERE namespace = ? AND key = ?", ("user-42", key)).get)

    def fill(entries: Iterable[tuple[str, Any]]) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")
        for key, value in entries:  # one by one, so that the log reaches its full length
            put(key, value)
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    yield Peer(put, get, fill)
    connection.close()


@contextmanager
def diskcache(folder: Path) -> Iterator[Peer]:
    """`diskcache.Cache` with its own settings; it pickles."""
    from diskcache import Cache

    with Cache(str(folder)) as cache:
        yield Peer(cache.set, cache.get)


@contextmanager
def redis(folder: Path) -> Iterator[Peer]:
    """redis-py and a server of our own on loopback, which appends to a file and syncs it every second."""
    from redis import Redis

    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    with _redis_server(folder) as port, Redis(port=port) as client:

        def put(key: str, value: Any) -> None:
            client.set("user-42:" + key, encode(value))

        def get(key: str) -> Any:
            return decode(client.get("user-42:" + key))

        yield Peer(put, get)


def has_redis() -> bool:
    """Whether there is a redis-server to start."""
    return shutil.which("redis-server") is not None


@contextmanager
def _redis_server(folder: Path) -> Iterator[int]:
    folder.mkdir()
    port = _free_port()
    arguments = f"--bind 127.0.0.1 --port {port} --appendonly yes --appendfsync everysec --loglevel warning".split()
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["redis-server", *arguments, "--save", "", "--dir", str(folder)], stdout=log, stderr=log
        )
        try:
            _wait_for(port, server)
            yield port
        finally:
            server.terminate()
            server.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError("redis-server did not start")


@contextmanager
def langgraph(path: Path) -> Iterator[Peer]:
    """LangGraph's `SqliteStore`, opened the way its documentation does."""
    from langgraph.store.base import PutOp
    from langgraph.store.sqlite import SqliteStore

    namespace = ("user-42",)
    with SqliteStore.from_conn_string(str(path)) as store:
        store.setup()

        def put(key: str, value: Any) -> None:
            store.put(namespace, key, value)

        def get(key: str) -> Any:
            item = store.get(namespace, key)
            return None if item is None else item.value

        def fill(entries: Iterable[tuple[str, Any]]) -> None:
            store.batch([PutOp(namespace, key, value) for key, value in entries])

        yield Peer(put, get, fill)
