"""What goes wrong around a server: it is killed, its disk fills up, clients vanish, dawdle or come in crowds.

Each test starts real servers and breaks real connections; by default a bounded number of times, more with --long.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults import workers
from tests.server.running import Served, read_all, read_until, run, until

from botwire import Memory
from botwire.errors import BotWireError, OutcomeUnknown, StoreUnavailable
from botwire.ops import Append, NewMessage
from botwire.stores.sqlite import SQLiteStore
from botwire_server import Settings
from botwire_server.listening import Listening


def figure(server: Served, name: str) -> float:
    """A figure of /metrics, or -1 while the server does not tell."""
    answer = server.ask("GET", "/metrics")
    lines = [line for line in answer.body.decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2]) if answer.status == 200 and lines else -1


def is_well(server: Served) -> None:
    """It answers, reads and writes, holds no stray connection, and has nothing to complain of."""
    key = f"/v1/namespaces/well/items/{time.monotonic_ns()}"
    assert server.ask("PUT", key, {"value": 1}).status == 201
    assert server.ask("GET", key).status == 200
    assert server.ask("GET", "/readyz").status == 200
    until(lambda: figure(server, "botwire_connections") == 1, "connections that were left are closed")
    until(lambda: figure(server, "botwire_streams") == 0, "streams that were left are closed")
    assert "Traceback" not in server.log
    assert server.process.poll() is None


def reset(connection: socket.socket) -> None:
    """Close a connection as a crash does: at once, with what is under way lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# ── killed under load ───────────────────────────────────────────────────────────────────────────────


class Writer(threading.Thread):
    """A client that appends 1, 2, 3, … to two conversations until told to stop, and notes what it is answered."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.namespace = name
        self.acknowledged: list[int] = []
        self.unknown: list[int] = []
        self.insisted = 0
        self.over = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        memory = Memory(self.namespace, url=self.url, timeout=workers.PATIENCE)
        try:
            number = 0
            while not self.over.is_set():
                number += 1
                self._append(memory, number)
                self._insist(memory, number)
        except BaseException as error:  # told by the test
            self.failure = error
            raise
        finally:
            memory.close()

    def _append(self, memory: Memory, number: int) -> None:
        """Once, with what the client itself does to get it through."""
        try:
            memory.conversation("once").append(number)
        except (OutcomeUnknown, StoreUnavailable):
            self.unknown.append(number)
        else:
            self.acknowledged.append(number)

    def _insist(self, memory: Memory, number: int) -> None:
        """Again and again under the same request id, until it is acknowledged."""
        op = Append(self.namespace, "sure", [NewMessage(workers.text(number))])
        deadline = time.monotonic() + workers.PATIENCE
        while True:
            try:
                memory.execute([op], request_id=f"{self.namespace}-{number}")
            except (OutcomeUnknown, StoreUnavailable):
                assert time.monotonic() < deadline, "the server did not come back"
            else:
                self.insisted = number
                return


class Watcher(threading.Thread):
    """Follows a namespace through every break, from its beginning."""

    def __init__(self, url: str, namespace: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.namespace = namespace
        self.versions: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        memory = Memory(self.namespace, url=self.url, timeout=workers.PATIENCE)
        cursor = ""
        while not self.over.is_set():
            try:
                for change in memory.watch(after=cursor, timeout=0.2):
                    self.versions.append(change.version)
                    cursor = change.cursor
            except BotWireError:
                continue  # it is down for longer than the client has patience: go on from the cursor
        memory.close()


def test_killed_under_load_it_loses_nothing_it_acknowledged_and_doubles_nothing(start, tmp_path, rounds):
    server = start()
    port = str(server.port)
    writers = [Writer(server.url, f"writer-{number}") for number in range(3)]
    watcher = Watcher(server.url, "writer-0")
    for thread in (*writers, watcher):
        thread.start()
    for _ in range(rounds(4, 100)):
        before = [writer.insisted for writer in writers]
        until(lambda: _all_went_on(writers, before), "everybody's writes get through")  # noqa: B023  # used at once
        time.sleep(random.random() * 0.2)
        server.kill()
        server = start("--port", port)
    for writer in writers:
        writer.over.set()
        writer.join(workers.PATIENCE)
        assert not writer.is_alive()
        assert writer.failure is None
    until(lambda: len(watcher.versions) >= _version(server, "writer-0"), "the watcher has seen everything")
    watcher.over.set()
    watcher.join(workers.PATIENCE)
    assert server.stop() == 0
    store = SQLiteStore(str(tmp_path / "memory.db"))
    for writer in writers:
        memory = Memory(writer.namespace, store=store)
        check_once(writer, [message.value for message in memory.conversation("once").messages()])
        sure = [message.value for message in memory.conversation("sure").messages()]
        assert sure == list(range(1, writer.insisted + 1)), "each is there once, and in order"
    assert watcher.versions == list(range(1, len(watcher.versions) + 1)), "no change was missed or came twice"
    store.close()
    workers.audit(tmp_path / "memory.db")


def _all_went_on(writers: list[Writer], before: list[int]) -> bool:
    assert all(writer.is_alive() for writer in writers), [writer.failure for writer in writers]
    return all(writer.insisted > number + 3 for writer, number in zip(writers, before, strict=True))


def _version(server: Served, namespace: str) -> int:
    found: int = server.ask("GET", f"/v1/namespaces/{namespace}").json["version"]
    return found


def check_once(writer: Writer, there: list[int]) -> None:
    """What was acknowledged is there once, what was in doubt at most once, and nothing else is."""
    assert len(there) == len(set(there)), "a write was doubled"
    assert there == sorted(there)
    assert set(writer.acknowledged) - set(there) == set(), "an acknowledged write was lost"
    assert set(there) - set(writer.acknowledged) - set(writer.unknown) == set()
    assert len(writer.acknowledged) > len(writer.unknown), "the client's own retries carried most writes over"


class Between:
    """Stands between a client and a server. Told to, it lets a request through and loses its answer."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.when_lost: Callable[[], None] | None = None
        """Called in place of passing the next answer on."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, until(self._reach, "there is a server to pass it on to") as server:
            threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
            self._answer(server, client)
            with contextlib.suppress(OSError):  # it is closed already
                client.shutdown(socket.SHUT_RDWR)  # closing alone would not end it while `_pump` reads from it

    def _reach(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self.upstream))
        except ConnectionRefusedError:
            return None  # just now there is none: the client's patience is not what is tested

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while piece := client.recv(65_536):
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of them is gone

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while piece := server.recv(65_536):
                lost, self.when_lost = self.when_lost, None
                if lost is not None:
                    lost()
                    return
                client.sendall(piece)
        except OSError:
            return  # one of them is gone

    def close(self) -> None:
        """Take no more."""
        self._listening.close()


WRITES: dict[str, Callable[[Memory], object]] = {
    "append": lambda memory: memory.conversation("talk").append("hello"),
    "increment": lambda memory: memory.increment("count"),
    "set": lambda memory: memory.set("key", "value"),
    "batch": lambda memory: memory.set_many({"a": 1, "b": 2}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_answer_is_lost_with_the_server_is_repeated_and_applied_once(start, tmp_path, write):
    server = start()
    port = server.port
    between = Between(port)
    memory = Memory("user-42", url=between.url, timeout=workers.PATIENCE)
    WRITES[write](memory)
    before = memory.stats().version
    killed = threading.Event()

    def kill() -> None:
        server.kill()
        killed.set()

    between.when_lost = kill
    writer = threading.Thread(target=lambda: WRITES[write](memory))
    writer.start()
    assert killed.wait(workers.PATIENCE)
    server = start("--port", str(port))
    writer.join(workers.PATIENCE)
    assert not writer.is_alive()
    taken = {"increment": 1, "append": 1, "set": 1, "batch": 2}[write]
    assert memory.stats().version == before + taken, "the write that was answered into the void is there once"
    memory.close()
    between.close()
    assert server.stop() == 0
    workers.audit(tmp_path / "memory.db")


def test_killed_in_an_import_it_leaves_nothing_of_it(start, tmp_path):
    memory = Memory("source", store=SQLiteStore(str(tmp_path / "source.db")))
    for number in range(200):
        memory.set(f"key-{number}", "x" * 10_000)
    file = tmp_path / "export.jsonl"
    memory._opened().close()
    exported = run("--url", f"sqlite:///{tmp_path / 'source.db'}", "-n", "source", "export", str(file))
    assert exported.returncode == 0, exported.stderr
    lines = file.read_bytes()
    server = start()
    with server.connect() as connection:
        head = f"POST /v1/namespaces/target/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(lines)}\r\n\r\n"
        connection.sendall(head.encode() + lines[: len(lines) // 2])
        until(lambda: figure(server, "botwire_received_bytes_total") > len(lines) // 2, "half of it has come")
        server.kill()
    server = start()
    assert server.ask("GET", "/v1/namespaces/target/items").json["items"] == []
    again = server.ask("POST", "/v1/namespaces/target/import", lines)
    assert again.status == 200, again.body
    assert len(server.ask("GET", "/v1/namespaces/target/items?limit=1000&values=false").json["items"]) == 200
    assert server.stop() == 0
    workers.audit(tmp_path / "memory.db")


# ── a full disk ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk, on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is refused here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_with_its_disk_full_it_refuses_writes_goes_on_reading_and_writes_again_when_there_is_room(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_500_000)
    server = start("--store", f"sqlite:///{small_disk / 'memory.db'}")
    written = 0
    while (answer := put(server, f"key-{written}")).status == 201:
        written += 1
        assert written < 1_000, "the disk never fills"
    assert answer.status == 507
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "urn:botwire:problem:store-full"
    assert written > 3
    for _ in range(3):  # it stays so, and reading goes on
        assert put(server, "more").status == 507
        for number in range(written):
            assert server.ask("GET", f"/memory/full/key-{number}").json["value"] == f"key-{number}" + "x" * 20_000
        assert server.ask("GET", "/v1/namespaces/full/items?values=false").json["items"][0]["key"] == "key-0"
        assert server.ask("GET", "/readyz").status == server.ask("GET", "/metrics").status == 200
    client = Memory("full", url=server.url)
    with pytest.raises(BotWireError, match="Free some space"):
        client.set("more", "x" * 20_000)
    client.close()
    ballast.unlink()
    assert put(server, "after").status == 201
    assert server.ask("GET", "/memory/full/more").status == 404
    assert server.stop() == 0
    assert "Traceback" not in server.log
    workers.audit(small_disk / "memory.db")


def put(server: Served, key: str) -> Any:
    return server.ask("PUT", f"/v1/namespaces/full/items/{key}", {"value": key + "x" * 20_000})


# ── clients that vanish ─────────────────────────────────────────────────────────────────────────────

Moment = Callable[[Served], socket.socket]


def in_the_head(server: Served) -> socket.socket:
    connection = server.connect()
    connection.sendall(b"PUT /v1/namespaces/user-42/items/lost HTTP/1.1\r\nHost: loc")
    return connection


def in_the_body(server: Served) -> socket.socket:
    connection = server.connect()
    connection.sendall(
        b"PUT /v1/namespaces/user-42/items/lost HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    )
    return connection


def before_the_answer(server: Served) -> socket.socket:
    connection = server.connect()
    body = b'{"ops":[{"op":"scan","namespace":"user-42"}]}'
    connection.sendall(b"POST /v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def in_a_large_answer(server: Served) -> socket.socket:
    connection = server.connect()
    connection.sendall(b"GET /v1/namespaces/large/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.recv(1_000)
    return connection


def in_a_stream(server: Served) -> socket.socket:
    connection = server.connect()
    connection.sendall(b"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    read_until(connection, b"\r\n\r\n")
    return connection


def in_an_import(server: Served) -> socket.socket:
    connection = server.connect()
    connection.sendall(
        b"POST /v1/namespaces/imported/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'14\r\n{"botwire":"export",\n\r\n'
    )
    return connection


MOMENTS: list[Moment] = [
    in_the_head, in_the_body, before_the_answer, in_a_large_answer, in_a_stream, in_an_import,
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_clients_that_vanish_leave_nothing_behind(start, moment, rounds):
    server = start("--heartbeat", "0.2")
    for number in range(40):
        assert server.ask("PUT", f"/v1/namespaces/large/items/key-{number}", {"value": "x" * 100_000}).status == 201
    for number in range(rounds(30, 1_000)):
        connection = moment(server)
        if number % 2:
            reset(connection)
        else:
            connection.close()
    is_well(server)
    assert server.ask("GET", "/memory/user-42/lost").status == 404
    assert server.ask("GET", "/v1/namespaces/imported/items").json["items"] == []
    assert server.stop() == 0


def test_what_was_asked_before_the_client_vanished_is_done_whole_or_not_at_all(start, tmp_path, rounds):
    server = start()
    puts = [{"op": "put", "namespace": "pairs", "key": "", "value": 1} for _ in range(20)]
    for number in range(rounds(30, 1_000)):
        body = json.dumps({"ops": [{**op, "key": f"{number}-{place}"} for place, op in enumerate(puts)]}).encode()
        head = b"POST /v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection = server.connect()
        connection.sendall(head + body)
        time.sleep(random.random() * 0.01)
        reset(connection)
    is_well(server)
    assert server.stop() == 0
    store = SQLiteStore(str(tmp_path / "memory.db"))
    keys = Memory("pairs", store=store).keys()
    store.close()
    batches = {key.partition("-")[0] for key in keys}
    assert len(keys) == 20 * len(batches) > 0
    workers.audit(tmp_path / "memory.db")


# ── clients that dawdle ─────────────────────────────────────────────────────────────────────────────


def test_a_body_that_stops_coming_is_given_up_and_nothing_of_it_is_written(start):
    server = start("--body-timeout", "0.5")
    slow = [in_the_body(server) for _ in range(20)]
    for connection in slow:
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer
        connection.close()
    is_well(server)
    assert server.ask("GET", "/memory/user-42/lost").status == 404


def test_who_dawdles_does_not_hold_up_the_others(start):
    server = start()
    slow = [in_the_body(server) for _ in range(100)] + [in_the_head(server) for _ in range(100)]
    for number in range(50):
        assert server.ask("PUT", f"/v1/namespaces/user-42/items/{number}", {"value": number}).status == 201
    for connection in slow:
        connection.close()
    is_well(server)


def test_a_stream_that_nobody_reads_is_cut_off_and_costs_little_meanwhile(start):
    server = start("--body-timeout", "0.5", "--heartbeat", "0.2")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.connect(("127.0.0.1", server.port))
    deaf.sendall(b"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    until(lambda: figure(server, "botwire_streams") == 1, "the stream is open")
    before = resident(server)
    for number in range(25):
        ops = [
            {"op": "put", "namespace": "busy", "key": f"{number}-{each}-" + "k" * 450, "value": 1}
            for each in range(1_000)
        ]
        assert server.ask("POST", "/v1/execute", {"ops": ops}).status == 200
    until(lambda: figure(server, "botwire_streams") == 0, "the stream that nobody reads is cut off")
    assert figure(server, 'botwire_refused_total{reason="unread"}') == 1
    assert resident(server) - before < 100_000_000, "14 MB of events were not kept for it"
    deaf.close()
    is_well(server)


def resident(server: Served) -> int:
    """The bytes of memory that a server takes."""
    if sys.platform != "linux":
        return 0
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux's sockets")
def test_the_system_notices_clients_whose_machine_is_gone(tmp_path):
    listening = Listening(Settings(port=0))
    [bound] = listening.sockets
    bound.listen()
    with socket.create_connection(bound.getsockname()), bound.accept()[0] as accepted:
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    listening.close()


# ── crowds ──────────────────────────────────────────────────────────────────────────────────────────


def test_in_a_crowd_everybody_is_served_or_told_that_there_is_no_room(start):
    server = start("--max-connections", "20")
    answers: list[int] = []
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(10):
            status = server.ask("GET", "/v1/namespaces/user-42/items").status
            with lock:
                answers.append(status)

    crowd = [threading.Thread(target=ask) for _ in range(60)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(workers.PATIENCE)
    assert len(answers) == 600, "nobody was left without an answer"
    assert set(answers) <= {200, 503}
    assert 200 in answers
    is_well(server)


def test_connections_that_ask_for_nothing_do_not_keep_the_others_out_for_ever(start):
    server = start("--max-connections", "10", "--header-timeout", "0.5")
    idle = [server.connect() for _ in range(30)]
    until(lambda: server.ask("GET", "/healthz").status == 200, "there is room again")
    for connection in idle:
        connection.close()
    is_well(server)


def test_told_to_stop_in_a_crowd_it_ends_well(start):
    server = start("--shutdown-timeout", "5")
    crowd = [moment(server) for moment in MOMENTS[:5] for _ in range(20)]
    server.tell(signal.SIGTERM)
    assert server.wait() == 0
    assert "Traceback" not in server.log
    for connection in crowd:
        connection.close()
