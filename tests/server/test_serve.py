"""`botwire serve`: what it says, what it refuses to begin, TLS, how many it takes, and how it ends. Real processes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.server.running import Served, environment, read_all, read_until, run, until

from botwire import Memory
from botwire.errors import BotWireError
from botwire.stores.sqlite import SQLiteStore
from botwire_server import Settings, create_app
from botwire_server.listening import Listening
from botwire_server.serve import Server


def put(server: Served, key: str, value: object) -> None:
    answer = server.ask("PUT", f"/v1/namespaces/user-42/items/{key}", {"value": value})
    assert answer.status == 201, answer


def value(server: Served, key: str) -> object:
    return server.ask("GET", f"/memory/user-42/{key}").json["value"]


def made_key(url: str) -> str:
    """A new key of a store."""
    made = run("--url", url, "keys", "create", "--name", "laptop")
    assert made.returncode == 0, made.stderr
    key = re.search(r"bw_\w+", made.stdout)
    assert key is not None
    return key[0]


def stored(path: Path) -> dict[str, object]:
    """What a file holds, after its server has gone."""
    store = SQLiteStore(str(path))
    try:
        return {item.key: item.value for item in Memory("user-42", store=store).items()}
    finally:
        store.close()


# ── what it says ────────────────────────────────────────────────────────────────────────────────────


def test_it_says_where_it_is_where_the_data_lies_and_how_to_use_it(start, tmp_path):
    server = start()
    path = tmp_path / "memory.db"
    assert server.ready == {
        "event": "ready", "url": server.url, "data": str(path), "durability": "full", "keys": False,
        "pid": server.process.pid, "version": server.ready["version"],
    }  # fmt: skip
    for line in (
        f"serves {server.url}",
        f"{path} (durable: an acknowledged write survives power loss)",
        "keys    off",
        "5,000 connections",
        f'Memory("user-42", url="{server.url}")',
    ):
        assert line in server.log
    assert server.stop() == 0


def test_what_it_tells_to_do_works(start):
    server = start()
    told = re.search(r"Memory\(.*\)", server.log)
    assert told is not None
    program = f"from botwire import Memory; m = {told[0]}; m.set('coffee', 'black'); print(m.get('coffee')); m.close()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("black\n", "")


def test_limits_durability_and_memory_without_a_file_are_told(start):
    server = start(
        "--store", "sqlite://", "--free-tier", "--requests-per-second", "7", "--max-connections", "9"
    )  # fmt: skip
    assert server.ready["data"] == "memory"
    assert server.ready["durability"] == "none"
    assert "in memory: it goes when the server ends" in server.log
    assert "1,000 writes a day in each namespace, 50,000,000 bytes in each namespace, 7 requests a second" in server.log
    assert "9 connections" in server.log
    policy = server.ask("GET", "/v1/namespaces/new").json["policy"]
    assert (policy["writes_per_day"], policy["max_bytes"]) == (1_000, 50_000_000)
    assert start("--durability", "relaxed").ready["durability"] == "relaxed"


def test_without_a_store_it_serves_botwire_url_or_the_default_file(start, tmp_path):
    file = tmp_path / "mine.db"
    assert start(environ={"BOTWIRE_URL": f"sqlite:///{file}"}).ready["data"] == str(file)
    home = str(tmp_path / "home")
    default = start(environ={"XDG_DATA_HOME": home, "HOME": home, "BOTWIRE_URL": "http://127.0.0.1:8765"})
    assert default.ready["data"].startswith(home)
    assert "BOTWIRE_URL names a server" in default.log
    put(default, "key", 1)
    assert value(default, "key") == 1


def test_a_url_before_the_command_names_the_store_and_a_namespace_there_is_refused(tmp_path):
    done = run("-n", "user-42", "serve", "--port", "0")
    assert done.returncode == 2
    assert "leave out -n" in done.stderr
    done = run("--url", f"sqlite:///{tmp_path}", "serve", "--port", "0")
    assert done.returncode == 3
    assert str(tmp_path) in done.stderr


def test_a_path_with_signs_that_mean_something_in_urls_is_found(start, tmp_path):
    path = tmp_path / "50% of #1 & more.db"
    server = start("--store", "sqlite:///" + str(path).replace("%", "%25").replace("#", "%23"))
    assert server.ready["data"] == str(path)
    put(server, "key", 1)
    assert server.stop() == 0
    assert stored(path) == {"key": 1}


# ── what it refuses ─────────────────────────────────────────────────────────────────────────────────


def refused(*options: str, **environ: str) -> tuple[int, str]:
    """The exit code of a server that does not begin, and the one line that it says."""
    done = run("serve", *options, **environ)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def test_beyond_loopback_it_wants_tls_or_a_proxy_and_then_keys(tmp_path):
    store = ("--store", f"sqlite:///{tmp_path / 'memory.db'}", "--port", "0", "--host", "0.0.0.0")
    code, told = refused(*store)
    assert code == 2
    assert "--tls-cert" in told
    assert "--trusted-proxies" in told
    assert "--insecure-http" in told
    for way in (["--insecure-http"], ["--trusted-proxies", "10.0.0.1"]):
        code, told = refused(*store, *way)
        assert code == 2
        assert "botwire keys create" in told


def test_beyond_loopback_it_begins_once_there_is_a_key_and_lets_nobody_in_without(start, tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    key = made_key(url)
    server = start("--store", url, "--host", "0.0.0.0", "--insecure-http")
    assert server.ready["keys"] is True
    assert "allowed_hosts is empty" in server.log
    assert server.ask("GET", "/memory/user-42/key").status == 401
    allowed = {"Authorization": f"Bearer {key}"}
    assert server.ask("PUT", "/v1/namespaces/user-42/items/key", {"value": 1}, allowed).status == 201
    assert server.ask("GET", "/healthz").status == server.ask("GET", "/readyz").status == 200
    assert key not in server.log


def test_a_port_that_is_taken_is_told(start, tmp_path):
    server = start()
    code, told = refused("--store", f"sqlite:///{tmp_path / 'other.db'}", "--port", str(server.port))
    assert code == 3
    assert f"127.0.0.1:{server.port} is taken" in told


async def test_a_port_that_another_server_takes_at_the_same_moment_is_told():
    settings = Settings(port=0)
    with contextlib.closing(Listening(settings)) as listening, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(listening.sockets[0].getsockname())  # both may bind; one of them can listen
        other.listen()
        config = uvicorn.Config(create_app(SQLiteStore(":memory:")), lifespan="off", log_config=None)
        config.load()
        server = Server(config, settings, lambda: None)
        server.lifespan = config.lifespan_class(config)
        with pytest.raises(BotWireError, match="is taken by another program"):
            await server.startup(listening.sockets)


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:"), ("[::1]", "http://[::1]:"), ("localhost", "http://localhost:")]
)
def test_it_listens_on_every_address_of_its_host(start, host, url):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = start("--host", host)
    assert server.url.startswith(url)
    for *_, address in socket.getaddrinfo(host.strip("[]"), server.port, type=socket.SOCK_STREAM):
        with socket.create_connection((str(address[0]), server.port), timeout=60) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in read_until(connection, b'"ready"}')


def test_an_address_that_is_not_of_this_machine_is_told(tmp_path):
    store = ("--store", f"sqlite:///{tmp_path / 'memory.db'}", "--insecure-http", "--port", "0")
    code, told = refused(*store, "--host", "192.0.2.1")
    assert code == 2
    assert "no address of this machine" in told
    code, told = refused(*store, "--host", "no-such-host.invalid")
    assert code == 2
    assert "no-such-host.invalid" in told


def test_a_store_that_cannot_be_opened_is_told(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("These are notes of mine, not a database at all. " * 200)
    code, told = refused("--store", f"sqlite:///{file}", "--port", "0")
    assert code == 3
    assert str(file) in told
    code, told = refused("--store", f"sqlite:///{tmp_path / 'none' / 'memory.db'}", "--port", "0")
    assert code == 3
    assert str(tmp_path / "none") in told
    for url in ("http://127.0.0.1:8765", "https://memory.example"):
        code, told = refused("--store", url)
        assert code == 2
        assert "is a server itself" in told
    code, told = refused("--store", "postgresql://localhost/db")
    assert code == 2


def test_a_probe_tells_whether_the_server_of_the_environment_is_ready(start, tmp_path):
    cert, key = make_certificate(tmp_path)
    tls = {"BOTWIRE_TLS_CERT": str(cert), "BOTWIRE_TLS_KEY": str(key)}
    for server, more in [(start(), {}), (start("--tls-cert", str(cert), "--tls-key", str(key)), tls)]:
        environ = environment(BOTWIRE_PORT=str(server.port), **more)
        probe = [sys.executable, "-W", "error", "-m", "botwire_server.probe"]
        assert subprocess.run(probe, env=environ, timeout=60, check=False).returncode == 0
        assert server.stop() == 0
        gone = subprocess.run(probe, env=environ, timeout=60, check=False, capture_output=True, text=True)
        assert gone.returncode == 1
        assert f"127.0.0.1:{server.port}/readyz" in gone.stderr


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────


def make_certificate(folder: Path, name: str = "server") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return cert_file, key_file


def test_over_tls_it_answers_to_those_who_trust_its_certificate(start, tmp_path):
    cert, key = make_certificate(tmp_path)
    server = start("--tls-cert", str(cert), "--tls-key", str(key))
    assert server.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(cert))
    assert server.ask("PUT", "/v1/namespaces/user-42/items/a", {"value": 1}, tls=trusting).status == 201
    assert server.ask("GET", "/memory/user-42/a", tls=trusting).json["value"] == 1
    with pytest.raises(ssl.SSLCertVerificationError):
        server.ask("GET", "/healthz", tls=ssl.create_default_context())
    with server.connect() as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" not in read_all_or_reset(plain)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask("GET", "/healthz", tls=old)
    assert server.stop() == 0


def read_all_or_reset(connection: socket.socket) -> bytes:
    try:
        return read_all(connection)
    except ConnectionResetError:
        return b""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(start, tmp_path):
    cert, key = make_certificate(tmp_path)
    server = start("--tls-cert", str(cert), "--tls-key", str(key))
    other = tmp_path / "other"
    other.mkdir()
    new_cert, new_key = make_certificate(other)
    cert.write_bytes(b"not a certificate")
    server.tell(signal.SIGHUP)
    until(lambda: "the certificate was not renewed" in server.log, "a broken certificate is told")
    cert.write_bytes(new_cert.read_bytes())
    key.write_bytes(new_key.read_bytes())
    server.tell(signal.SIGHUP)
    until(lambda: "the certificate was read again" in server.log, "the new one is taken up")
    assert server.ask("GET", "/healthz", tls=ssl.create_default_context(cafile=str(new_cert))).status == 200


def test_certificates_that_cannot_be_used_are_told(tmp_path):
    cert, key = make_certificate(tmp_path)
    _, other_key = make_certificate(tmp_path, "other")
    store = ("--store", f"sqlite:///{tmp_path / 'memory.db'}", "--port", "0")
    for one, two, told in [
        (tmp_path / "none.pem", key, "none.pem' cannot be read: No such file"),
        (cert, tmp_path / "none.key", "none.key' cannot be read: No such file"),
        (cert, other_key, "must be a certificate and its own key"),
        (key, cert, "must be a certificate and its own key"),
    ]:
        code, line = refused(*store, "--tls-cert", str(one), "--tls-key", str(two))
        assert code == 2
        assert told in line


# ── how many, and how slow ──────────────────────────────────────────────────────────────────────────


def test_connections_over_the_limit_get_a_503_and_those_below_go_on(start):
    server = start("--max-connections", "3")
    held = [server.connect() for _ in range(3)]
    for each in held:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in read_until(each, b'"ok"}')
    for _ in range(5):
        refused = server.ask("GET", "/memory/user-42/key")
        assert refused.status == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert "max_connections" in refused.json["detail"]
    held[1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in read_until(held[1], b'"ok"}')
    held.pop().close()
    until(lambda: server.ask("GET", "/healthz").status == 200, "there is room again")
    for each in held:
        each.close()
    assert server.stop() == 0


def test_a_body_that_is_sent_before_the_503_is_read_does_not_lose_it(start):
    server = start("--max-connections", "1")
    with server.connect() as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(first, b'"ok"}')
        answer = server.ask("PUT", "/memory/user-42/big", b'"' + b"x" * 500_000 + b'"')
        assert answer.status == 503


def test_whoever_is_slow_with_the_head_of_a_request_is_told_so_and_closed(start):
    server = start("--header-timeout", "0.5")
    with server.connect() as silent, server.connect() as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: lo")
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 0.5 seconds" in answer
        assert read_all(silent).startswith(b"HTTP/1.1 408 ")
    with server.connect() as idle:  # after a request one may be silent for longer
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(idle, b'"ok"}')
        idle.settimeout(2)
        with pytest.raises(TimeoutError):
            idle.recv(1)


def test_a_head_without_end_is_cut_off(start):
    server = start()
    for head in (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /v1/execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"GET /",
    ):
        with server.connect() as endless:
            endless.sendall(head)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                endless.sendall(b"x" * 20_000_000)
            assert server.ask("GET", "/healthz").status == 200


def test_what_is_no_http_gets_a_problem(start):
    server = start()
    with server.connect() as connection:
        connection.sendall(b"HELO there\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400


OFFER = b"Host: localhost\r\nConnection: %b\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("in_pieces", [False, True])
def test_an_offer_to_speak_http_2_is_not_taken_up_and_loses_nothing(start, in_pieces):
    server = start()
    body = b'{"value": "' + b"x" * 100_000 + b'"}'
    head = b"PUT /v1/namespaces/user-42/items/key HTTP/1.1\r\n" + OFFER + b"Content-Length: %d\r\n\r\n"
    with server.connect() as connection:
        request = head % (b"Upgrade, HTTP2-Settings", len(body)) + body
        pieces = [request[: len(request) - 90_000], request[len(request) - 90_000 :]] if in_pieces else [request]
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        assert read_until(connection, b"}").startswith(b"HTTP/1.1 201 ")
        offered = b"GET /memory/user-42/key HTTP/1.1\r\n" + OFFER % b"keep-alive, Upgrade" + b"\r\n"
        connection.sendall(offered * 3)  # on the same connection, several at once
        answers = b""
        while answers.count(b'x"}') < 3:
            answers += read_until(connection, b'x"}')
        assert answers.count(b"HTTP/1.1 200 ") == 3


def test_what_comes_behind_a_body_is_no_header(start):
    server = start("--access-log")
    with server.connect() as connection:
        connection.sendall(
            b"PUT /v1/namespaces/user-42/items/key HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'c\r\n{"value": 1}\r\n0\r\nIf-Match: "99"\r\nX-Request-Id: from-the-trailer\r\n\r\n'
        )
        answer = read_until(connection, b"}")
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"from-the-trailer" not in answer


@pytest.mark.skipif(sys.platform == "win32", reason="limits open files as POSIX does")
def test_with_too_few_files_allowed_the_limit_of_connections_is_lowered_and_that_is_told(start):
    import resource

    server = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (110, 110)))
    assert "max_connections=5000 is lowered to 10" in server.log
    held = [server.connect() for _ in range(10)]
    for each in held:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in read_until(each, b'"ok"}')
    assert server.ask("GET", "/healthz").status == 503
    for each in held:
        each.close()


# ── how it ends ─────────────────────────────────────────────────────────────────────────────────────

HALF = b"PUT /v1/namespaces/user-42/items/late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n"


def stopping(server: Served) -> None:
    server.tell(signal.SIGTERM)
    until(lambda: "stopping" in server.log, "it has heard the signal")


def test_told_to_stop_it_lets_requests_end_and_streams_and_takes_no_more(start, tmp_path):
    server = start()
    put(server, "early", 1)
    with server.connect() as request, server.connect() as stream, server.connect() as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(idle, b'"ok"}')
        stream.sendall(
            b"GET /v1/namespaces/user-42/changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        assert b"200 OK" in read_until(stream, b"\r\n\r\n")
        request.sendall(HALF + b'{"value')
        until(lambda: b"botwire_streams 1.0" in server.ask("GET", "/metrics").body, "the stream is open")
        stopping(server)
        assert read_all(stream).endswith(b"0\r\n\r\n"), "the stream ended as a whole"
        assert read_all(idle) == b""
        until(lambda: refuses_connections(server), "it takes no more connections")
        assert server.process.poll() is None
        request.sendall(b'": 2}')
        answer = read_all(request)
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert b"connection: close" in answer
    assert server.wait() == 0
    assert "stopped" in server.log
    assert "Traceback" not in server.log
    assert stored(tmp_path / "memory.db") == {"early": 1, "late": 2}
    assert not (tmp_path / "memory.db-wal").exists(), "the store was closed well"


def refuses_connections(server: Served) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_requests_that_do_not_end_are_cut_off_when_time_is_up(start, tmp_path):
    server = start("--shutdown-timeout", "0.5")
    put(server, "early", 1)
    with server.connect() as request:
        request.sendall(HALF + b'{"value')
        until(lambda: b"botwire_connections 2.0" in server.ask("GET", "/metrics").body, "the request has come")
        stopping(server)
        assert server.wait() == 0
    assert "Traceback" not in server.log
    assert stored(tmp_path / "memory.db") == {"early": 1}


def test_a_second_signal_ends_it_at_once(start, tmp_path):
    server = start("--shutdown-timeout", "600")
    put(server, "early", 1)
    with server.connect() as request:
        request.sendall(HALF + b'{"value')
        until(lambda: b"botwire_connections 2.0" in server.ask("GET", "/metrics").body, "the request has come")
        stopping(server)
        server.tell(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    assert stored(tmp_path / "memory.db") == {"early": 1}


def test_ctrl_c_ends_it_as_well(start):
    server = start()
    server.tell(signal.SIGINT)
    assert server.wait() == 0
    assert "stopped" in server.log


def test_writes_that_were_acknowledged_before_the_end_are_there(start, tmp_path):
    server = start()
    written: list[int] = []

    def write() -> None:
        with server.connect() as connection:
            for number in range(100_000):
                body = b'{"value": %d}' % number
                head = b"PUT /v1/namespaces/user-42/items/n%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                try:
                    connection.sendall(head % (number, len(body)) + body)
                    if b"HTTP/1.1 201" not in read_until(connection, b"}"):
                        return
                except ConnectionError:
                    return
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: len(written) > 50, "some was written")
    assert server.stop() == 0
    writer.join()
    there = stored(tmp_path / "memory.db")
    assert [number for number in written if there.get(f"n{number}") != number] == []
    assert len(there) <= len(written) + 1


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────


def test_as_json_every_line_is_an_object_and_bears_the_request_id(start):
    server = start("--log-format", "json", "--access-log")
    answer = server.ask("GET", "/memory/user-42/nothing?secret=1", headers={"X-Request-Id": "my-own-id"})
    assert answer.headers["x-request-id"] == "my-own-id"
    server.ask("PUT", "/v1/namespaces/user-42/items/caf%C3%A9%0Aline", {"value": "my-private-value"})
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert [line["message"] for line in lines] == ["serving", "request", "request", "stopping", "stopped"]
    assert lines[0]["url"] == server.url
    assert {"time", "level", "logger", "ms"} <= lines[1].keys()
    assert (lines[1]["request_id"], lines[1]["method"], lines[1]["path"]) == (
        "my-own-id", "GET", "/memory/user-42/nothing",
    )  # fmt: skip
    assert lines[1]["principal"] == lines[2]["principal"] == "local"
    assert "secret" not in server.log
    assert "my-private-value" not in server.log


def test_as_text_a_line_stays_a_line_and_requests_are_not_logged_unless_asked_for(start):
    server = start()
    server.ask("GET", "/memory/user-42/nothing")
    assert "/memory/user-42/nothing" not in server.log
    server = start("--access-log")
    server.ask("GET", "/memory/user-42/a%0Ab%20c")
    until(lambda: "/memory/user-42/a%0Ab%20c" in server.log, "the request is logged")
    line = server.log.splitlines()[-1]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    request method=GET path=\S+ status=400 ms=", line)


def test_keys_never_reach_the_log(start, tmp_path):
    key = made_key(f"sqlite:///{tmp_path / 'memory.db'}")
    server = start("--access-log", "--log-level", "debug")
    allowed = {"Authorization": f"Bearer {key}"}
    assert server.ask("PUT", "/v1/namespaces/user-42/items/key", {"value": 1}, allowed).status == 201
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert server.ask("GET", "/memory/user-42/key", headers={"Authorization": f"Bearer {wrong}"}).status == 401
    for path in (f"/memory/user-42/{key}", f"/healthz?api_key={key}"):
        assert server.ask("GET", path, headers=allowed).status == 400
    assert server.stop() == 0
    assert server.log.count("request method=") == 4
    assert key.rpartition("_")[2][:-1] not in server.log


def test_strangers_cannot_fill_the_log(start):
    server = start()
    before = server.log
    for request in (
        b"HELO\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        for _ in range(5):
            with server.connect() as connection:
                connection.sendall(request)
                read_until(connection, b"}")
    assert server.log == before
