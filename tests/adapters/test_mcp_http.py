"""The MCP server over streamable HTTP: who gets in, with which rights, and how it ends. Real processes and sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.adapters.mcp_clients import COMMAND, WAYS, Session, key_maker, run, session_over
from tests.server.running import PATIENCE, Served, environment, starting, until

from botwire import AsyncMemory, Memory, tools

streamable = pytest.importorskip("mcp.client.streamable_http")

NAMES = [tool.name for tool in tools.TOOLS]

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


class Running:
    """`botwire mcp --http` in a process of its own."""

    def __init__(self, options: tuple[str, ...], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *options], env=environment(**environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        assert line, self.process.communicate()[1]
        self.url: str = json.loads(line)["url"]

    def post(self, message: Any = LIST, *, method: str = "POST", path: str = "/mcp", **headers: str) -> tuple[int, Any]:
        """The status and the answer of a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port or 0, timeout=PATIENCE)
        try:
            body = message if isinstance(message, bytes) else json.dumps(message)
            sent = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            text = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `botwire mcp --http` on a free port, with these options."""
    started: list[Running] = []

    def begin(*options: str, **environ: str) -> Running:
        where = () if "--http" in options else ("--http", "127.0.0.1:0")
        started.append(Running((*where, *options), environ))
        return started[-1]

    yield begin
    for each in started:
        each.close()


@asynccontextmanager
async def session(url: str, way: str, key: str | None = None) -> AsyncGenerator[Session]:
    """A client's session."""
    make = pytest.importorskip("mcp.shared._httpx_utils").create_mcp_http_client
    headers = None if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        make(headers) as client,
        session_over(streamable.streamable_http_client(url, http_client=client), way) as opened,
    ):
        yield opened


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Callable[..., str]]]:
    """A server that wants keys, and a way to make some."""
    folder = tmp_path_factory.mktemp("guarded")
    make_key = key_maker(folder)
    with starting(folder) as begin:
        server = begin("--durability", "relaxed")
        make_key()
        yield server, make_key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def refusal(*options: str, **environ: str) -> str:
    """What `botwire mcp` says when it does not start."""
    done = run(*options, **environ)
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


# ── serving ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_what_one_client_remembers_another_one_recalls(start, url, namespace, way):
    served = start("--namespace", namespace, BOTWIRE_URL=url)
    async with session(served.url, way) as one, session(served.url, way) as two:
        assert await one.names() == NAMES
        await one.call("remember", key="coffee", value="Ethiopian")
        assert '"Ethiopian"' in (await two.call("recall", query="coffee"))[0]
        [resource] = await two.resources()
        assert await two.read(resource["uri"]) == ("Ethiopian", "text/plain")
        assert (await two.call("remind"))[1]
    assert Memory(namespace, url)["coffee"] == "Ethiopian"


async def test_read_only_holds_over_http_too(start, tmp_path):
    served = start("--read-only", BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    async with session(served.url, WAYS[-1]) as client:
        assert await client.names() == ["recall", "list_memories"]
        assert (await client.call("remember", key="a", value="b"))[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_ends_well_when_it_is_told_to(start, tmp_path, number):
    served = start(BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    assert served.post()[0] == 200
    served.process.send_signal(number)
    out, err = served.process.communicate(timeout=PATIENCE)
    assert (served.process.returncode, out) == (0, "")
    assert err == f"botwire serves MCP at {served.url}\n"


def test_a_port_that_is_taken_is_a_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("--http", f"127.0.0.1:{port}", BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    assert f"cannot listen on 127.0.0.1 port {port}" in said


def test_what_is_no_request_of_the_protocol_is_refused(start, tmp_path):
    served = start(BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    assert served.post(b"{")[0] == 400
    assert served.post(b"x" * 5_000_000)[0] == 413
    assert served.post(Content_Type="text/plain")[0] == 400
    assert served.post(method="GET")[0] == 405
    assert served.post(method="DELETE")[0] == 405
    assert served.post(path="/")[0] == 404
    status, answer = served.post(LIST | {"method": "tools/call", "params": {"name": "recall", "arguments": [1]}})
    assert "error" in answer
    assert served.post()[0] == 200
    assert status < 500


# ── who gets in: a file behind ──────────────────────────────────────────────────────────────────────


def test_web_pages_are_kept_out(start, tmp_path):
    served = start(BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    port = urlsplit(served.url).port
    assert served.post(Host="evil.example")[0] == 403
    assert served.post(Host=f"evil.example:{port}")[0] == 403
    assert served.post(Host=f"127.0.0.1.evil.example:{port}")[0] == 403
    assert served.post(Origin="https://evil.example")[0] == 403
    assert served.post(Origin="null")[0] == 403
    assert served.post(Origin="")[0] == 403
    assert served.post(Host="[")[0] in (400, 403)
    assert served.post(Origin=f"http://localhost:{port}")[0] == 403
    for name in ("127.0.0.1", "localhost", "[::1]"):
        assert served.post(Host=f"{name}:{port}")[0] == 200
        assert served.post(Host=name)[0] == 200


def test_a_file_is_served_to_this_machine_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    for options in (
        ["--http", "0.0.0.0:0", "--insecure-http"],
        ["--http", "[::]:0", "--insecure-http"],
        ["--http", "127.0.0.1:0", "--allowed-hosts", "memory.example.com"],
    ):
        assert "a file has no API keys, so only this machine may reach it" in refusal(*options, BOTWIRE_URL=url)
    assert not (tmp_path / "memory.db").exists()


def test_a_file_whose_server_wants_keys_is_not_served_without(tmp_path):
    key_maker(tmp_path)()
    said = refusal("--http", "127.0.0.1:0", BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    assert "this file has API keys" in said
    assert "botwire serve" in said


def test_a_key_for_a_file_is_refused_not_ignored(start, tmp_path):
    served = start(BOTWIRE_URL=f"sqlite:///{tmp_path / 'memory.db'}")
    status, answer = served.post(**bearer("bw_000000000000_0"))
    assert status == 401
    assert "has no API keys" in answer["error"]["message"]


# ── who gets in: a server behind ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_each_caller_has_the_rights_of_its_key(start, guarded, namespace, way):
    server, make_key = guarded
    writer, reader = make_key("--scope", namespace), make_key("--scope", namespace, "--access", "read")
    served = start("-n", f"{namespace}/eu", BOTWIRE_URL=server.url)
    async with session(served.url, way, writer) as one, session(served.url, way, reader) as two:
        assert await one.names() == NAMES
        assert await two.names() == ["recall", "list_memories"]
        await one.call("remember", key="coffee", value="Ethiopian")
        assert '"Ethiopian"' in (await two.call("recall", query="coffee"))[0]
        assert "this key allows to read" in (await two.call("forget", key="coffee"))[0]
        assert [resource["name"] for resource in await two.resources()] == ["coffee"]
    assert Memory(f"{namespace}/eu", server.url, api_key=writer)["coffee"] == "Ethiopian"


def test_without_a_valid_key_nobody_gets_in(start, guarded, namespace):
    server, make_key = guarded
    key, elsewhere = make_key("--scope", namespace), make_key("--scope", "elsewhere")
    served = start("-n", namespace, BOTWIRE_URL=server.url)
    assert served.post(**bearer(key))[0] == 200
    status, answer = served.post()
    assert status == 401
    assert "API key" in answer["error"]["message"]
    wrong = [
        "Bearer " + key[:-1] + ("0" if key[-1] != "0" else "1"), "Bearer bw_000000000000_0", "Bearer", "Bearer ",
        f"Basic {key}", key, f"Bearer {key} {key}", "Bearer bw_é", f"Bearer {key}, Bearer {key}",
    ]  # fmt: skip
    for header in wrong:
        assert served.post(Authorization=header.encode().decode("latin-1"))[0] == 401, header
    assert served.post(path=f"/mcp?api_key={key}")[0] == 401
    assert served.post(**bearer(elsewhere))[0] == 403
    assert served.post(LIST | {"method": "initialize"})[0] == 401


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="open files are counted in /proc")
def test_keys_that_are_made_up_hold_no_connections(start, tmp_path):
    key_maker(tmp_path)()
    with starting(tmp_path) as begin:  # one that counts the wrong keys of this test alone
        served = start(BOTWIRE_URL=begin().url)
        descriptors = Path(f"/proc/{served.process.pid}/fd")
        served.post(**bearer("bw_ffffffffffff_0"))
        before = len(list(descriptors.iterdir()))
        for number in range(60):
            assert served.post(**bearer(f"bw_{number:012x}_0"))[0] in (401, 429)
        assert len(list(descriptors.iterdir())) < before + 20


def test_a_revoked_key_is_out(start, guarded, namespace):
    server, make_key = guarded
    key, admin = make_key(), make_key("--access", "admin")
    served = start("-n", namespace, BOTWIRE_URL=server.url)
    assert served.post(**bearer(key))[0] == 200
    command = [sys.executable, "-c", "from botwire.cli import main; main()", "keys", "revoke", key.split("_")[1]]
    env = environment(BOTWIRE_URL=server.url, BOTWIRE_API_KEY=admin)
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=PATIENCE)
    until(lambda: served.post(**bearer(key))[0] == 401, "the key is out")


def test_the_own_key_of_the_process_is_lent_to_nobody(start, guarded, namespace):
    server, make_key = guarded
    own, other, elsewhere = make_key("--access", "admin"), make_key(), make_key("--scope", "elsewhere")
    served = start("-n", namespace, BOTWIRE_URL=server.url, BOTWIRE_API_KEY=own)
    assert served.post()[0] == 401
    assert served.post(**bearer(elsewhere))[0] == 403
    assert served.post(**bearer(other))[0] == 200


def test_a_server_that_is_gone_is_503_and_it_serves_again_when_it_is_back(start, tmp_path):
    with starting(tmp_path) as begin:
        behind = begin("--durability", "relaxed")
        served = start(BOTWIRE_URL=behind.url)
        assert served.post()[0] == 200
        behind.kill()
        status, answer = served.post()
        assert status == 503
        assert str(behind.port) in answer["error"]["message"]
        begin("--durability", "relaxed", "--port", str(behind.port))
        assert served.post()[0] == 200


# ── beyond this machine ─────────────────────────────────────────────────────────────────────────────


def test_beyond_this_machine_it_wants_keys_and_tls(guarded, tmp_path):
    server, _ = guarded
    assert "API keys would travel in the open" in refusal("--http", "0.0.0.0:0", BOTWIRE_URL=server.url)
    with starting(tmp_path) as begin:
        keyless = begin("--keys", "off").url
        for options in (["0.0.0.0:0", "--insecure-http"], ["127.0.0.1:0", "--allowed-hosts", "memory.example.com"]):
            said = refusal("--http", *options, BOTWIRE_URL=keyless)
            assert "the server behind wants no API key" in said
    assert "TLS needs both" in refusal("--http", "0.0.0.0:0", "--tls-cert", "x.pem", BOTWIRE_URL=server.url)
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("not a certificate")
    pem = ["--tls-cert", str(nothing), "--tls-key", str(nothing)]
    assert "the certificate or its key cannot be used" in refusal("--http", "0.0.0.0:0", *pem, BOTWIRE_URL=server.url)


def test_behind_a_proxy_it_answers_to_its_name_and_wants_a_key(start, guarded, namespace):
    server, make_key = guarded
    key = bearer(make_key())
    served = start("-n", namespace, "--allowed-hosts", "memory.example.com", BOTWIRE_URL=server.url)
    assert served.post(Host="memory.example.com", **key)[0] == 200
    assert served.post(Host="other.example.com", **key)[0] == 403
    assert served.post(Host="memory.example.com")[0] == 401


def test_on_another_address_it_answers_whoever_has_a_key(start, guarded, namespace):
    server, make_key = guarded
    key = make_key()
    served = start("-n", namespace, "--http", "0.0.0.0:0", "--insecure-http", BOTWIRE_URL=server.url)
    assert served.post(**bearer(key))[0] == 200
    assert served.post(Host="memory.example.com", **bearer(key))[0] == 200
    assert served.post(Origin="https://evil.example", **bearer(key))[0] == 403
    assert served.post()[0] == 401
    assert served.post(**bearer("bw_000000000000_0"))[0] == 401


def test_tls(start, guarded, namespace, tmp_path):
    server, make_key = guarded
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    where = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*openssl, *where], cwd=tmp_path, check=True, capture_output=True)
    pem = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    key = make_key()
    served = start("-n", namespace, *pem, BOTWIRE_URL=server.url)
    assert served.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    port = urlsplit(served.url).port or 0
    connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
    connection.request("POST", "/mcp", json.dumps(LIST), HEADERS | bearer(key))
    assert connection.getresponse().status == 200
    connection.close()


# ── the memories of the callers ─────────────────────────────────────────────────────────────────────


async def test_those_not_used_for_longest_are_let_go_but_never_one_in_use(tmp_path: Path):
    from botwire_mcp.callers import Callers

    made: dict[str | None, AsyncMemory] = {}
    closed: list[str | None] = []

    class Watched(AsyncMemory):
        async def close(self) -> None:
            closed.append(self.namespace)
            await super().close()

    def make(key: str | None) -> AsyncMemory:
        made[key] = Watched(str(key), f"sqlite:///{tmp_path / 'memory.db'}")
        return made[key]

    callers = Callers(make, most=3)
    async with callers.memory("in-use") as held:
        for key in ("a", "b", "a", "c", "d"):
            async with callers.memory(key) as memory:
                await memory.set("x", key)
        assert await held.get("x") is None
        assert closed == ["b", "a"]
    await callers.close()
    assert sorted(map(str, closed)) == ["a", "b", "c", "d", "in-use"]
    assert list(made) == ["in-use", "a", "b", "c", "d"]


async def test_the_application_can_be_mounted_by_another_server(tmp_path):
    from botwire_mcp import create_app

    app: Any = create_app("user-42", url=f"sqlite:///{tmp_path / 'memory.db'}")
    sent: list[dict[str, Any]] = []
    body = json.dumps(LIST).encode()
    raw = [(name.lower().encode(), value.encode()) for name, value in (HEADERS | {"Host": "localhost"}).items()]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"",
             "headers": raw, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http",
             "http_version": "1.1", "asgi": {"version": "3.0"}}  # fmt: skip
    first = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not first.is_set():
            first.set()
            return {"type": "http.request", "body": body}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert sent[0]["status"] == 200
    assert [tool["name"] for tool in json.loads(sent[1]["body"])["result"]["tools"]] == NAMES


@pytest.mark.parametrize("host", ["0.0.0.0", "memory.example.com"])
def test_an_application_over_a_file_refuses_to_be_open(tmp_path, host):
    from botwire_mcp import create_app

    with pytest.raises(ValueError, match="a file has no API keys"):
        create_app(url=f"sqlite:///{tmp_path / 'memory.db'}", host=host)
