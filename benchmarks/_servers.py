"""Servers to measure, each a process of its own on loopback, and the loads that are put on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "requests.lua"
CONNECTIONS = 16
PATIENCE = 60.0  # seconds that a server may take to start

NEEDED = {"wrk": "wrk", "redis-server": "redis-server", "redis-benchmark": "redis-tools"}
"""Programs, and the Debian packages that they are in."""


def missing() -> list[str]:
    """The packages that have to be installed first."""
    return sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float
    """How long it took until it was ready."""
    busy: float = 0.0
    """How much of that it took of a processor."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> int:
        """The bytes resident in it, files that it has mapped left out: those are the system's own pages."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines())
        return (int(found["RssAnon"].split()[0]) + int(found["RssShmem"].split()[0])) * 1024

    def resident(self) -> int:
        """All bytes resident in it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def processor(self) -> float:
        """Seconds of processor time that it has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def botwire(url: str, folder: Path, *options: str) -> Generator[Server]:
    """`botwire serve` over a store, as it is started from a shell."""
    program = str(Path(sys.executable).with_name("botwire"))
    command = [program, "serve", "--store", url, "--port", "0", *options]
    with (folder / "botwire.log").open("ab") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None  # it is a pipe
            line = process.stdout.readline()
            seconds = time.perf_counter() - begun
            if not line:
                raise RuntimeError(f"botwire serve did not start: {(folder / 'botwire.log').read_text()}")
            server = Server(process, int(json.loads(line)["url"].rpartition(":")[2]), seconds)
            server.busy = server.processor()
            yield server
        finally:
            _end(process)


@contextmanager
def plain(folder: Path) -> Generator[Server]:
    """The yardstick, by uvicorn with its own settings but the access log, which would cost it more."""
    folder.mkdir()
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "benchmarks._plain_server:app", "--port", str(port), "--no-access-log",
        "--log-level", "warning",
    ]  # fmt: skip
    environment = {**os.environ, "PLAIN_DB": str(folder / "plain.db")}
    with _started(command, port, folder / "log", environment) as server:
        yield server


@contextmanager
def redis(folder: Path) -> Generator[Server]:
    """A Redis that keeps everything in memory."""
    folder.mkdir()
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with _started(command, port, folder / "log", dict(os.environ)) as server:
        yield server


@contextmanager
def _started(command: Sequence[str], port: int, log_file: Path, environment: dict[str, str]) -> Generator[Server]:
    with log_file.open("wb") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                    raise RuntimeError(f"{command[0]} did not start: {log_file.read_text()}")
                time.sleep(0.02)
            yield Server(process, port, time.perf_counter() - begun)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


# ── loads ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Run:
    """What came of some seconds of load."""

    rate: float
    """Requests a second."""
    p50: float
    """Microseconds, as the 99th percentile."""
    p99: float
    processor: float
    """Microseconds of the server's processor time for each request."""
    refused: int = 0
    """Answers with a status of 400 or more."""
    broken: int = 0
    timeouts: int = 0


def wrk(server: Server, kind: str, path: str, count: int, seconds: float) -> Run:
    """Load of `wrk` over some connections: `path` names one of `count` things by its `%d`."""
    command = [
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT), server.url, "--", kind,
        path, str(count),
    ]  # fmt: skip
    before = server.processor()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(
        found["requests"] / found["microseconds"] * 1e6,
        found["p50"],
        found["p99"],
        (server.processor() - before) / max(1, found["requests"]) * 1e6,
        found["refused"],
        found["broken"],
        found["timeouts"],
    )


def redis_benchmark(server: Server, kind: str, count: int, keys: int, size: int) -> Run:
    """Load of `redis-benchmark`: as many connections, random keys, values of the same size."""
    command = [
        "redis-benchmark", "-p", str(server.port), "-c", str(CONNECTIONS), "-n", str(count), "-r", str(keys),
        "-d", str(size), "-t", kind, "--csv",
    ]  # fmt: skip
    before = server.processor()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    processor = (server.processor() - before) / count * 1e6
    header, line = (
        [cell.strip('"') for cell in line.split(",")] for line in done.stdout.splitlines() if line.startswith('"')
    )
    found = dict(zip(header, line, strict=True))
    p50, p99 = (float(found[name]) * 1_000 for name in ("p50_latency_ms", "p99_latency_ms"))
    return Run(float(found["rps"]), p50, p99, processor)


@contextmanager
def reading(server: Server, path: str) -> Generator[list[int]]:
    """Meanwhile somebody reads a long answer, over and over. Yields how many bytes have come."""
    bytes_read, stop = [0], threading.Event()

    def read() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", server.port)) as line:
                line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                while not stop.is_set() and (piece := line.recv(1 << 18)):
                    bytes_read[0] += len(piece)

    thread = threading.Thread(target=read, name="long read")
    thread.start()
    try:
        yield bytes_read
    finally:
        stop.set()
        thread.join()


@contextmanager
def streams(server: Server, paths: Sequence[str]) -> Generator[None]:
    """Meanwhile change streams are open, one for each path."""
    with contextlib.ExitStack() as lines:
        for path in paths:
            line = lines.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
            if not (answer := line.recv(4_096)).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"no stream at {path}: {answer[:400]!r}")
        yield


def ask(server: Server, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """One request. Returns status and body."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {} if text is None else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
